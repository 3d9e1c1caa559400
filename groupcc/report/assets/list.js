// The latents: searched, filtered and sorted as plain arrays; only the rows of one page are in the document.
var PAGE = 50;
var list = document.getElementById("list"), search = document.getElementById("search"), sort = document.getElementById("sort");
var filters = Array.prototype.slice.call(document.querySelectorAll("#filters select[name]"));
var chips = Array.prototype.slice.call(document.querySelectorAll("#kinds button"));
var kind = "", first = 0, found = [], words = [];

function plain(row) {
  if (words[row] === undefined) {
    words[row] = (data.rows[row] + " " + data.kindWords[data.columns.kind[row]]).replace(/<[^>]*>/g, " ").toLowerCase();
  }
  return words[row];
}

// A number alone is a latent's; several words must all be there.
function matches(row, asked) {
  if (kind && data.columns.kind[row] !== kind) { return false; }
  for (var i = 0; i < filters.length; i++) {
    var value = data.columns[filters[i].name][row];
    var told = "flag" in filters[i].dataset ? (value === null ? "no" : "yes") : String(value);
    if (filters[i].value && told !== filters[i].value) { return false; }
  }
  if (/^\d+$/.test(asked)) { return data.latents[row] === Number(asked); }
  return asked.split(/\s+/).every(function (word) { return plain(row).indexOf(word) >= 0; });
}

function compare(column, down) {
  var values = data.columns[column];
  return function (a, b) {
    if (values[a] === null || values[b] === null) { return (values[a] === null) - (values[b] === null) || a - b; }
    return (down ? values[b] - values[a] : values[a] - values[b]) || a - b;
  };
}

function choose() {
  var asked = search.value.trim().toLowerCase(), by = sort.value.split(" ");
  found = [];
  for (var row = 0; row < data.latents.length; row++) { if (matches(row, asked)) { found.push(row); } }
  if (by[0] !== "page") { found.sort(compare(by[0], by[1] === "down")); }
  first = 0;
  drawMap(found);
  show();
}

function item(row) {
  var details = document.createElement("details"), latent = data.latents[row];
  details.className = "latent k-" + data.columns.kind[row];
  details.id = "latent-" + latent;
  details.innerHTML = "<summary>" + data.rows[row] + "</summary>";
  details.addEventListener("toggle", function () { if (details.open) { unfold(details, row); } });
  return details;
}

// toggle comes a moment late and again for each opening; a link or a printer wants the body at once.
function unfold(details, row) {
  if (details.children.length > 1) { return; }
  details.insertAdjacentHTML("beforeend", data.bodies[row]);
  fill(details);
  var table = details.querySelector(".all-numbers tbody");
  Object.keys(data.columns).forEach(function (name) {
    var value = data.columns[name][row];
    if (value === null) { return; }
    var line = table.insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    line.appendChild(head);
    line.insertCell().textContent = value;
  });
}

function show() {
  var end = Math.min(first + PAGE, found.length), many = found.length.toLocaleString("en");
  list.replaceChildren.apply(list, found.slice(first, end).map(item));
  fill(list);
  document.getElementById("count").textContent =
    (found.length === data.latents.length ? "All " + many : many + " of " + data.latents.length.toLocaleString("en")) +
    (found.length > PAGE ? " latents, " + (first + 1) + "–" + end + " shown" : " latents");
  document.getElementById("none").hidden = found.length > 0;
  document.getElementById("pager").hidden = found.length <= PAGE;
  document.getElementById("previous").disabled = first === 0;
  document.getElementById("next").disabled = end === found.length;
  chips.forEach(function (chip) {
    chip.setAttribute("aria-pressed", String(chip.dataset.kind === kind));
    var about = document.getElementById("about-" + chip.dataset.kind);
    if (about) { about.hidden = chip.dataset.kind !== kind; }
  });
}

function turn(pages) {
  var to = first + pages * PAGE;
  if (to < 0 || to >= found.length) { return; }
  first = to;
  show();
  list.querySelector("summary").focus();
}

function choosing(wantedKind) { kind = wantedKind; choose(); }

function everything() {
  search.value = "";
  filters.forEach(function (filter) { filter.value = ""; });
  choosing("");
}

// #latent-12 shows and opens it, whatever was chosen before; #kind-180 chooses a kind.
function follow() {
  var name = decodeURIComponent(location.hash.slice(1)), latent = /^latent-(\d+)$/.exec(name);
  if (name.indexOf("kind-") === 0 && document.getElementById(name)) {
    search.value = "";
    choosing(name.slice(5));
    document.getElementById("latents").scrollIntoView();
  } else if (latent && rowOf.has(Number(latent[1]))) {
    var row = rowOf.get(Number(latent[1]));
    if (found.indexOf(row) < 0) { everything(); }
    first = Math.floor(found.indexOf(row) / PAGE) * PAGE;
    show();
    var details = document.getElementById(name);
    details.open = true;
    unfold(details, row);
    details.scrollIntoView();
    details.firstElementChild.focus({ preventScroll: true });
  }
}

function step(by) {
  var all = Array.prototype.slice.call(list.querySelectorAll("details.latent > summary"));
  var at = all.indexOf(document.activeElement) + by;
  if (document.activeElement.closest("#list") === null) { at = by > 0 ? 0 : all.length - 1; }
  if (at < 0) { turn(-1); } else if (at >= all.length) { turn(1); } else { all[at].focus(); }
}

var KEYS = {
  "/": function () { search.focus(); search.select(); },
  j: function () { step(1); },
  k: function () { step(-1); },
  n: function () { turn(1); },
  p: function () { turn(-1); },
  t: switchTheme,
};

addEventListener("keydown", function (event) {
  if (event.ctrlKey || event.metaKey || event.altKey) { return; }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") { everything(); event.target.blur(); }
    return;
  }
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});

fill(document);
if (list) {
  search.addEventListener("input", choose);
  [sort].concat(filters).forEach(function (select) { select.addEventListener("change", choose); });
  chips.forEach(function (chip) { chip.addEventListener("click", function () { choosing(chip.dataset.kind); }); });
  document.getElementById("previous").addEventListener("click", function () { turn(-1); });
  document.getElementById("next").addEventListener("click", function () { turn(1); });
  document.getElementById("finder").hidden = false;
  addEventListener("hashchange", follow);
  choose();
  follow();
}
