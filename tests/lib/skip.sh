# shellcheck shell=bash
# Ends a test that cannot run here, with the reason. With CI set nothing may be missing: a test that never runs tells nobody
# anything.

skip() {
    printf 'skipped: %s\n' "$*"
    [[ -z ${CI-} ]] || exit 1
    exit 0
}
