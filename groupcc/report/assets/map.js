// The family map: every latent a dot, those not chosen in the list pale; the nearest to the pointer is named.
var map = document.getElementById("map");
var places = [], BORDER = 30;

function drawMap(chosen) {
  if (!map) { return; }
  var picked = new Set(chosen), paths = {}, r = Math.max(2.5, Math.min(8, 150 / Math.sqrt(data.latents.length)));
  places = [];
  data.latents.forEach(function (latent, row) {
    var x = data.columns.map_x[row], y = data.columns.map_y[row];
    if (x === null || y === null) { return; }
    x = 12 + 976 * x;
    y = 12 + 976 * y;
    places.push([x, y, row]);
    var name = picked.has(row) ? data.columns.kind[row] : "pale";
    paths[name] = (paths[name] || "") + "M" + (x - r).toFixed(1) + " " + y.toFixed(1) +
      "a" + r + " " + r + " 0 1 0 " + 2 * r + " 0a" + r + " " + r + " 0 1 0 " + -2 * r + " 0";
  });
  var around = discs(r);
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
      (family >= 0 && family !== null ? ", family " + family : "");
  });
  map.addEventListener("click", function (event) {
    var row = nearest(event);
    if (row !== null) { location.hash = "#latent-" + data.latents[row]; }
  });
}
