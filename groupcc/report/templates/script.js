(function () {
  "use strict";
  // A link to a latent opens its card.
  function open() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; }
  }
  addEventListener("hashchange", open);
  open();
})();
