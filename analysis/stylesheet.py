"""The style of a page: light and dark, a phone and a wide screen, and paper."""

STYLE = """
:root { color-scheme: light dark; --text: #1c2128; --soft: #5c6670; --line: #d9dee3; --page: #ffffff;
  --panel: #f5f7f9; --good: #1f8a4c; --open: #96600f; --link: #2563b8; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #9aa4ae; --line: #343b43; --page: #14181d;
  --panel: #1d2329; --good: #4cc27e; --open: #e0a94b; --link: #7db3f5; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 60px; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { margin: 0; color: var(--soft); font-size: 15px; font-weight: 500; }
.lead { margin: 2px 0 20px; max-width: 32em; font-size: clamp(21px, 3.2vw, 28px); line-height: 1.25; font-weight: 650;
  text-wrap: balance; }
.lead.long { max-width: 44em; font-size: 19px; line-height: 1.45; font-weight: 500; }
h2 { margin: 52px 0 12px; font-size: 23px; line-height: 1.3; }
h3 { margin: 36px 0 10px; font-size: 17px; font-weight: 650; }
section:has(> .answer) > h2 { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
h2 + h3, section:has(> h2:only-child) + section > h3 { margin-top: 12px; }
p { margin: 0 0 12px; max-width: 46em; }
a { color: var(--link); }
.banner { margin: 0 0 16px; padding: 10px 14px; max-width: none; border: 1px solid var(--open); border-radius: 8px; }
.answer { margin: 0 0 14px; padding: 16px 20px 8px; border-left: 5px solid var(--open); border-radius: 6px;
  background: var(--panel); }
.answer.decided { border-left-color: var(--good); }
.verdict { margin: 0 0 4px; color: var(--open); font-size: 14px; font-weight: 650; }
.decided .verdict { color: var(--good); }
.sentence { font-size: 19px; line-height: 1.45; }
.contents { margin: 14px 0 0; font-size: 14.5px; }
.contents ul { columns: 3 16em; margin: 8px 0 0; padding: 0; list-style: none; }
.contents li.part { font-weight: 650; }
.arms { position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; gap: 0 18px; align-items: center;
  margin: 14px 0 0; padding: 6px 2px; max-height: 25vh; overflow: auto; background: var(--page);
  border-bottom: 1px solid var(--line); font-size: 14.5px; }
.arms label { display: flex; gap: 6px; align-items: center; min-height: 28px; cursor: pointer; }
.arms input { width: 16px; height: 16px; margin: 0; }
.arms i { width: 10px; height: 10px; border-radius: 50%; }
.arms .quiet { margin: 0 0 0 auto; padding-left: 12px; font-size: 13px; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0 0 12px; background: linear-gradient(to left, var(--page) 40%,
  transparent) right / 48px 100% no-repeat local, linear-gradient(to left, var(--line), transparent) right / 14px 100%
  no-repeat scroll; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
.grid { min-width: 60%; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
.number { padding-left: 8px; padding-right: 14px; text-align: right; }
th.number { white-space: normal; }
td:last-child:not(.number), th:last-child:not(.number) { padding-right: 0; }
td.long, th.long { min-width: 13em; max-width: 40em; white-space: normal; overflow-wrap: anywhere; }
.facts td { white-space: normal; }
.facts td:first-child { color: var(--soft); min-width: 8em; overflow-wrap: anywhere; }
.facts td:last-child { min-width: 0; overflow-wrap: anywhere; }
tr.leader td { font-weight: 650; }
tr.leader td.long { font-weight: 400; }
ul { margin: 10px 0 12px; padding-left: 20px; }
.quiet { color: var(--soft); font-size: 14.5px; }
.figure { width: 100%; margin: 0 0 12px; }
@media (hover: none) { .modebar { display: none !important; } }
pre { margin: 0 0 14px; padding: 12px 14px; overflow-x: auto; border-radius: 8px; background: var(--panel);
  font-size: 14px; }
summary { margin-top: 30px; cursor: pointer; }
summary > h2, summary > h3 { display: inline; }
details.trial > summary, .contents summary { margin-top: 0; }
details.trial { border-bottom: 1px solid var(--line); font-size: 14.5px; }
details.trial > summary { padding: 7px 0; overflow-wrap: anywhere; }
details.trial[open] { padding-bottom: 10px; }
details.trial:target > summary { font-weight: 650; }
@media (max-width: 600px) { main { padding: 18px 14px 48px; } .sentence { font-size: 17px; } h3 { margin-top: 28px; }
  .answer { padding: 14px 14px 4px; } .arms .quiet { display: none; } pre { white-space: pre-wrap; }
  .grid td.long, .grid th.long { min-width: 22em; }
  .grid :is(td, th):first-child { position: sticky; left: 0; background: var(--page); max-width: 45vw; min-width: 9.5em;
    white-space: normal; overflow-wrap: anywhere; } }
@media print { :root { --text: #000; --soft: #444; --line: #bbb; --page: #fff; --panel: #fff; --link: #000; }
  main { max-width: none; padding: 0; } .scroll { overflow: visible; } th, td { white-space: normal; }
  table { font-size: 11px; } tr, .figure, .answer { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .modebar, .arms, .contents, details:not([open]) { display: none; } pre { white-space: pre-wrap; } }
"""
