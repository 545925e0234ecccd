"""The style of a report's page: light and dark, a phone and a wide screen, and paper."""

STYLE = """
:root { color-scheme: light dark; --text: #1c2128; --soft: #5c6670; --line: #d9dee3; --page: #ffffff;
  --panel: #f5f7f9; --good: #1f8a4c; --open: #b7791f; --link: #2563b8; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #9aa4ae; --line: #343b43; --page: #14181d;
  --panel: #1d2329; --good: #4cc27e; --open: #e0a94b; --link: #7db3f5; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
.name { margin: 0; color: var(--soft); font-size: 14px; }
h1 { margin: 2px 0 20px; font-size: clamp(22px, 3.4vw, 30px); line-height: 1.25; font-weight: 650; text-wrap: balance; }
h2 { margin: 56px 0 12px; font-size: 23px; }
h3 { margin: 36px 0 10px; font-size: 17px; font-weight: 650; }
p { margin: 0 0 12px; max-width: 46em; }
a { color: var(--link); }
.banner { margin: 0 0 16px; padding: 10px 14px; max-width: none; border: 1px solid var(--open); border-radius: 8px; }
.answer { padding: 16px 20px 8px; border-left: 5px solid var(--open); border-radius: 6px; background: var(--panel); }
.answer.decided { border-left-color: var(--good); }
.verdict { margin: 0 0 4px; color: var(--open); font-size: 14px; font-weight: 650; }
.decided .verdict { color: var(--good); }
.sentence { font-size: 19px; line-height: 1.45; }
.scroll { overflow-x: auto; max-width: 100%; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; min-width: 60%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
table.wide { width: 100%; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
td.number, th.number { padding-left: 14px; padding-right: 8px; text-align: right; }
td:last-child { padding-right: 0; }
th.number { white-space: normal; vertical-align: bottom; }
th { vertical-align: bottom; }
.wide td:last-child { font-size: 12.5px; padding-left: 14px; }
.wide th:last-child { padding-left: 14px; }
@media (min-width: 900px) { .wide td:last-child { min-width: 13em; white-space: normal; overflow-wrap: anywhere; } }
.facts thead { display: none; }
td.reason, .facts td { white-space: normal; }
td.reason { min-width: 16em; }
.facts td:first-child { color: var(--soft); min-width: 11em; }
.facts td:last-child { overflow-wrap: anywhere; }
tr.leader td { font-weight: 650; }
tr.leader td:last-child { font-weight: 400; }
.notes { margin: 10px 0 0; padding-left: 20px; color: var(--soft); font-size: 14.5px; }
.note { margin: 0; color: var(--soft); font-size: 14.5px; }
.figure { width: 100%; }
@media (hover: none) { .modebar { display: none !important; } }
pre { margin: 0 0 14px; padding: 12px 14px; overflow-x: auto; border-radius: 8px; background: var(--panel);
  font-size: 14px; }
@media (max-width: 600px) { main { padding: 20px 14px 48px; } .sentence { font-size: 17px; } h3 { margin-top: 28px; } }
@media print { :root { --text: #000; --soft: #444; --line: #bbb; --page: #fff; --panel: #fff; }
  main { max-width: none; padding: 0; } .scroll { overflow: visible; } th, td { white-space: normal; }
  table { font-size: 11px; } section { break-inside: avoid; } .modebar { display: none; } }
"""
