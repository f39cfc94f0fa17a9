//! A page around the picture: one file that asks nobody for anything.

use std::fmt::Write;

use super::draw::{STYLE, Shape, svg, title};
use super::{Document, HoldEnd, Wait, duration, escape};

const PAGE: &str = "\
:root{color-scheme:light dark}*{box-sizing:border-box}body{margin:0 auto;max-width:1248px;padding:12px;background:var(--bg);color:var(--ink)}\
svg.kp{display:block;max-width:100%;height:auto;margin:0 auto}#narrow{display:none}\
h2{font-size:17px;margin:24px 0 8px}p,li{font-size:14px;line-height:1.45;overflow-wrap:anywhere}\
#about{position:sticky;bottom:0;margin:8px 0;padding:10px 12px;border:1px solid var(--grid);border-radius:8px;background:var(--bg);white-space:pre-line;font-size:13px;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%;font-size:13px}caption{text-align:left;color:var(--dim);padding:4px 0}\
th,td{text-align:left;vertical-align:top;padding:4px 8px;border-bottom:1px solid var(--grid);white-space:nowrap}td.what{white-space:normal;overflow-wrap:anywhere;width:99%}\
table.few{width:auto}td.num{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}tr.failed td{color:var(--bad)}\
@media(max-width:720px){#wide{display:none}#narrow{display:block;width:100%}thead{position:absolute;left:-9999px}\
table,tbody,caption{display:block}tr{display:block;padding:6px 0;border-bottom:1px solid var(--grid)}td,th[scope=row]{display:inline-block;border:0;padding:0 10px 0 0}\
td[data-h]::before{content:attr(data-h) ' ';color:var(--dim)}td.what{display:block;width:auto}td:empty{display:none}}\
@media print{#about{display:none}}";

/// What is pointed at or tapped is told below the picture, for fingers as for mice.
const SCRIPT: &str = "\
(function(){var a=document.getElementById('about');function show(e){var g=e.target.closest&&e.target.closest('g[tabindex]');if(!g)return;\
var t=g.querySelector('title');if(t)a.textContent=t.textContent}\
['click','focusin','pointerover'].forEach(function(k){document.addEventListener(k,show)})})();";

pub fn page(document: &Document) -> String {
    let name = escape(&title(document));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{name}: {}</title>\n\
         <style>{STYLE}{PAGE}</style>\n</head>\n<body class=\"kp\">\n<main>\n",
        escape(&document.headline())
    );
    for (id, shape) in [("wide", Shape::Wide), ("narrow", Shape::Narrow)] {
        // The page has the style already.
        let picture = svg(document, shape).replacen(&format!("<style>{STYLE}</style>\n"), "", 1);
        let _ = write!(out, "{}", picture.replacen("<svg ", &format!("<svg id=\"{id}\" "), 1));
    }
    out.push_str("<div id=\"about\" role=\"status\">Point at a bar, or tap it, for what it did and waited for.</div>\n");
    if !document.notes.is_empty() {
        out.push_str("<h2>About these times</h2>\n<ul>\n");
        for note in &document.notes {
            let _ = writeln!(out, "<li>{}</li>", escape(note));
        }
        out.push_str("</ul>\n");
    }
    steps(document, &mut out);
    moves(document, &mut out);
    let _ = write!(out, "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

fn steps(document: &Document, out: &mut String) {
    let zero = document.extent().map_or(0.0, |(begin, _)| begin);
    out.push_str(
        "<h2>Every step</h2>\n<table>\n<caption>Seconds from the beginning of the picture</caption>\n<thead><tr><th>node</th><th>run</th><th>step</th>\
         <th>begins</th><th>takes</th><th>waits</th><th>outcome</th><th>what it said</th></tr></thead>\n<tbody>\n",
    );
    for node in &document.nodes {
        for run in &node.runs {
            for span in &run.spans {
                let mut words: Vec<String> = span.title.iter().cloned().collect();
                words.extend(span.waits.iter().map(said));
                words.extend(span.cause.iter().map(|c| format!("cause: {c}")));
                words.extend(span.remedy.iter().map(|r| format!("remedy: {r}")));
                let waited = if span.waited() > 0.0 { duration(span.waited()) } else { String::new() };
                let cell = |class: &str, head: &str, text: &str| {
                    let head = if head.is_empty() || text.is_empty() {
                        String::new()
                    } else {
                        format!(" data-h=\"{head}\"")
                    };
                    format!("<td class=\"{class}\"{head}>{}</td>", escape(text))
                };
                let cells = [
                    cell("num", "run", &run.number.to_string()),
                    cell("step", "", &span.step),
                    cell("num", "at", &format!("{:.1} s", span.started - zero)),
                    cell("num", "takes", &duration(span.seconds())),
                    cell("num", "waits", &waited),
                    cell("", "", span.outcome.word()),
                    cell("what", "", &words.join("; ")),
                ];
                let bad = if span.cause.is_some() { " class=\"failed\"" } else { "" };
                let _ = writeln!(
                    out,
                    "<tr{bad}><th scope=\"row\">{}</th>{}</tr>",
                    escape(&node.name),
                    cells.concat()
                );
            }
        }
    }
    out.push_str("</tbody>\n</table>\n");
}

fn said(wait: &Wait) -> String {
    let seconds = wait.to - wait.from;
    if seconds >= 0.05 { format!("{} ({})", wait.what, duration(seconds)) } else { wait.what.clone() }
}

fn moves(document: &Document, out: &mut String) {
    if document.vip.is_empty() {
        return;
    }
    let zero = document.extent().map_or(0.0, |(begin, _)| begin);
    out.push_str("<h2>Who held the VIP</h2>\n<table class=\"few\">\n<thead><tr><th>node</th><th>from</th><th>to</th><th>then</th></tr></thead>\n<tbody>\n");
    for hold in &document.vip {
        let end = match hold.end {
            HoldEnd::GivenUp => "gave it up",
            HoldEnd::Taken => "another took it, or it booted",
            HoldEnd::Open => "still held it",
        };
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\" data-h=\"from\">{:.1} s</td><td class=\"num\" data-h=\"to\">{:.1} s</td><td>{end}</td></tr>",
            escape(&hold.node),
            hold.from - zero,
            hold.to - zero
        );
    }
    out.push_str("</tbody>\n</table>\n");
}
