// A record opens as a summary, with the JSON behind it. Without scripts the link hands out the JSON itself.
"use strict";

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  made.append(...(text === undefined ? [] : [text]), ...children);
  return made;
};

// What a reader asks of a run, by name.
function summary(record) {
  const { dataset, teacher, runtime, history } = record;
  const tested = history?.selected?.epoch;
  return [
    ["Status", record.error ? `${record.status}: ${record.error}` : record.status],
    ["Schedule", record.profile],
    ["Data", `${dataset.name}: ${dataset.train_images} to learn from, ${dataset.test_good} good and ${dataset.test_defect} defective to test`],
    ["Gaps", dataset.gaps.join("; ") || "none"],
    ["Teacher", teacher.tuned ? `${teacher.source}, fine-tuned for ${teacher.tuned.epochs} epochs` : teacher.source],
    ["Training", `${record.precision}, ${history?.steps ?? 0} steps${tested === undefined ? "" : `, epoch ${tested} tested`}`],
    ["Made", `${runtime.started.slice(0, 10)} on ${runtime.device}, ${(runtime.train_seconds / 60).toFixed(0)} min, commit ${(runtime.commit ?? "unknown").slice(0, 7)}`],
    ...Object.entries(record.metrics).map(([name, value]) => [name.replaceAll("_", " "), value.toFixed(3)]),
  ];
}

function show(record, address) {
  const title = `${record.method}${record.variant ? ` ${record.variant}` : ""}, ${record.category}, seed ${record.seed}`;
  const list = element("dl");
  for (const [name, value] of summary(record)) list.append(element("dt", name), element("dd", String(value)));
  const json = element("a", "The whole record (JSON)");
  json.href = address;
  json.download = "";
  const close = element("button", "Close");
  close.type = "button";
  const dialog = element("dialog", undefined, element("h2", title), list, element("p", undefined, json), close);
  dialog.className = "record";
  dialog.setAttribute("aria-label", `Record: ${title}`);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => event.key === "Escape" && dialog.close()); // the theme takes this key
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest?.("main a[download][href*='records/'][href$='.json']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    show(await (await fetch(link.href)).json(), link.href);
  } catch {
    location.assign(link.href); // pages opened as files
  }
});
