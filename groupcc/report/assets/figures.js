// Drawings that repeat for every latent come as short strings, a letter a value, and are drawn when they are shown.
var data = JSON.parse(document.getElementById("data").textContent);
var rowOf = new Map(data.latents.map(function (latent, row) { return [latent, row]; }));

function drawRing(place) {
  var letters = data.rings[rowOf.get(Number(place.dataset.ring))], shapes = {};
  data.sectors.forEach(function (path, g) {
    var step = data.letters.indexOf(letters[g]) - data.levels;
    var name = step < 0 ? "b" + -step : "a" + step;
    shapes[name] = (shapes[name] || "") + path;
  });
  place.innerHTML = data.rims + Object.keys(shapes).map(function (name) {
    return '<path class="' + name + '" d="' + shapes[name] + '"/>';
  }).join("");
}

function drawBars(place) {
  var letters = data[place.dataset.bars][rowOf.get(Number(place.dataset.latent))];
  var split = place.dataset.bars === "norms" ? data.turns : letters.length, paths = ["", ""];
  for (var i = 0; i < letters.length; i++) {
    var height = 100 * data.letters.indexOf(letters[i]) / (data.letters.length - 1), mirrored = i >= split;
    paths[+mirrored] += "M" + 8 * (i + mirrored) + " " + (104 - height) + "h6V104h-6z";
  }
  place.innerHTML = '<path class="turn" d="' + paths[0] + '"/><path class="mirror" d="' + paths[1] + '"/>';
}

// Each picture is in the file once, however often it is shown.
function fill(part) {
  part.querySelectorAll("img[data-patch]").forEach(function (image) {
    image.src = "data:image/jpeg;base64," + data.patches[image.dataset.patch];
  });
  part.querySelectorAll("[data-ring]").forEach(drawRing);
  part.querySelectorAll("[data-bars]").forEach(drawBars);
}
