// Light, dark, or as the system has it (no attribute). A page opened from a file may have no storage to remember it in.
var root = document.documentElement;

function stored(value) {
  try {
    if (value === undefined) { return localStorage.getItem("groupcc-theme"); }
    localStorage.setItem("groupcc-theme", value);
  } catch (refused) { /* then it lasts as long as the page */ }
  return null;
}

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light page" : "Dark page";
}

function switchTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  stored(root.dataset.theme);
  showTheme();
}

var wanted = stored();
if (wanted === "dark" || wanted === "light") { root.dataset.theme = wanted; }
document.getElementById("theme").hidden = false;
document.getElementById("theme").addEventListener("click", switchTheme);
showTheme();
