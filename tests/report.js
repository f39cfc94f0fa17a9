// What is wrong with the page in `w`, one text for each fault. Run by tests/report.
function measure(w) {
    const faults = [];
    const document = w.document;
    const wide = document.documentElement.scrollWidth;
    if (wide > w.innerWidth) faults.push(`the page is ${wide} px wide in a window of ${w.innerWidth} px`);
    const pictures = [...document.querySelectorAll('svg.kp')].filter(p => p.getBoundingClientRect().width > 0);
    if (pictures.length !== 1) return faults.concat([`${pictures.length} pictures are shown`]);
    const texts = [...pictures[0].querySelectorAll('text')].filter(t => t.textContent.trim());
    const boxes = texts.map(t => t.getBoundingClientRect());
    for (let a = 0; a < texts.length; a++) {
        const one = boxes[a];
        if (one.left < -0.5 || one.right > w.innerWidth + 0.5)
            faults.push(`"${texts[a].textContent}" sticks out: ${one.left.toFixed()} to ${one.right.toFixed()}`);
        if (parseFloat(w.getComputedStyle(texts[a]).fontSize) * pictures[0].getBoundingClientRect().width /
            pictures[0].viewBox.baseVal.width < 10)
            faults.push(`"${texts[a].textContent}" is smaller than 10 px`);
        for (let b = a + 1; b < texts.length; b++) {
            const other = boxes[b];
            const x = Math.min(one.right, other.right) - Math.max(one.left, other.left);
            const y = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
            // Lines of a text touch.
            if (x > 1 && y > 3) faults.push(`"${texts[a].textContent}" lies over "${texts[b].textContent}"`);
        }
    }
    const said = texts.map(t => t.textContent).join(' ');
    for (const row of document.querySelectorAll('tbody tr')) {
        const node = row.querySelector('th').textContent;
        if (!said.includes(node)) faults.push(`${node} is not in the picture`);
        const step = row.querySelector('td.step');
        if (step && !said.includes(step.textContent)) faults.push(`the step ${step.textContent} of ${node} is not in the picture`);
        if (row.getBoundingClientRect().width > w.innerWidth) faults.push(`a row of the table is too wide: ${row.textContent}`);
    }
    return [...new Set(faults)];
}
