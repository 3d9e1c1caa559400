// The map: every latent a dot, those not chosen in the list pale; the nearest to the pointer is named. Of a tied
// crosscoder a dot is the larger the more often the base latent fires; SPACING is that of their places.
var map = document.getElementById("map");
var places = [], BORDER = 30, SPACING = 0.7, tied = "atoms" in data.columns;

function drawMap(chosen) {
  if (!map) { return; }
  var picked = new Set(chosen), paths = {}, n = data.latents.length, often = data.columns.frequency;
  var most = tied ? Math.min(34, 976 * 0.4 * SPACING / Math.sqrt(n)) : Math.max(2.5, Math.min(8, 150 / Math.sqrt(n)));
  var top = tied && often ? Math.max.apply(null, often) : 0;
  places = [];
  data.latents.forEach(function (latent, row) {
    var x = data.columns.map_x[row], y = data.columns.map_y[row];
    if (x === null || y === null) { return; }
    x = 12 + 976 * x;
    y = 12 + 976 * y;
    places.push([x, y, row]);
    var r = top > 0 ? most * Math.max(0.25, Math.sqrt(often[row] / top)) : tied ? most / 2 : most;
    var name = picked.has(row) ? data.columns.kind[row] : "pale";
    var size = r.toFixed(1), wide = (2 * size).toFixed(1);
    paths[name] = (paths[name] || "") + "M" + (x - size).toFixed(1) + " " + y.toFixed(1) +
      "a" + size + " " + size + " 0 1 0 " + wide + " 0a" + size + " " + size + " 0 1 0 -" + wide + " 0";
  });
  var around = tied ? links() : discs(most);
  var bottom = places.reduce(function (low, place) { return Math.max(low, place[1]); }, 0);
  map.setAttribute("viewBox", [-BORDER, -BORDER, 1000 + 2 * BORDER, Math.ceil(bottom + 12 + 2 * BORDER)].join(" "));
  map.innerHTML = around + Object.keys(paths).sort(function (a, b) { return (b === "pale") - (a === "pale"); }).map(function (name) {
    return '<path class="k-' + name + '" d="' + paths[name] + '"/>';
  }).join("");
}

// What belongs to a family is not plain from dots alone: a pale disc lies under the members of each.
function discs(r) {
  var families = new Map();
  places.forEach(function (place) {
    var family = data.columns.family[place[2]];
    if (family !== null && family >= 0) { families.set(family, (families.get(family) || []).concat([place])); }
  });
  return Array.from(families.values()).filter(function (members) { return members.length > 1; }).map(function (members) {
    var x = 0, y = 0, reach = 0;
    members.forEach(function (place) { x += place[0] / members.length; y += place[1] / members.length; });
    members.forEach(function (place) { reach = Math.max(reach, Math.hypot(place[0] - x, place[1] - y)); });
    return '<circle cx="' + x.toFixed(1) + '" cy="' + y.toFixed(1) + '" r="' + (reach + 1.25 * r).toFixed(1) + '"/>';
  }).join("");
}

// Base latents that learned one shape: a line from each to the one that it repeats.
function links() {
  var at = new Map(places.map(function (place) { return [data.latents[place[2]], place]; }));
  return places.map(function (place) {
    var other = data.columns.duplicate_of ? at.get(data.columns.duplicate_of[place[2]]) : null;
    return !other ? "" : '<line x1="' + place[0].toFixed(1) + '" y1="' + place[1].toFixed(1) +
      '" x2="' + other[0].toFixed(1) + '" y2="' + other[1].toFixed(1) + '"/>';
  }).join("");
}

function nearest(event) {
  var box = map.getBoundingClientRect(), scale = (1000 + 2 * BORDER) / box.width;
  var x = (event.clientX - box.left) * scale - BORDER, y = (event.clientY - box.top) * scale - BORDER, best = null, least = 400;
  places.forEach(function (place) {
    var away = (place[0] - x) * (place[0] - x) + (place[1] - y) * (place[1] - y);
    if (away < least) { least = away; best = place[2]; }
  });
  return best;
}

if (map) {
  map.addEventListener("pointermove", function (event) {
    var row = nearest(event), family = row === null ? null : data.columns.family[row];
    map.style.cursor = row === null ? "" : "pointer";
    document.getElementById("map-says").textContent = row === null ? "" :
      "Latent " + data.latents[row] + ", " + data.kindWords[data.columns.kind[row]].toLowerCase() +
      (!tied && family >= 0 && family !== null ? ", family " + family : "");
  });
  map.addEventListener("click", function (event) {
    var row = nearest(event);
    if (row !== null) { location.hash = "#latent-" + data.latents[row]; }
  });
}
