// The theme of the Airflow UI around this frame. Airflow stores it in localStorage as "theme":
// light, dark or system; a frame of the same origin is notified of changes by an event. A plain
// script in the head, so that the colours are set before anything is painted.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");

  function apply() {
    let chosen = null;
    try {
      chosen = localStorage.getItem("theme");
    } catch {
      // Storage may be forbidden; the system's choice remains.
    }
    const known = chosen === "light" || chosen === "dark";
    document.documentElement.dataset.theme = known ? chosen : system.matches ? "dark" : "light";
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", apply);
})();
