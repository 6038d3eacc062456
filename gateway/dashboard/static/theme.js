// Light, dark or as the system is. Runs before the page is drawn, so that it doesn't flash.
"use strict";
{
  const chosen = localStorage.getItem("tidegate-theme") || "";
  document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    if (!select) return;
    select.value = chosen;
    select.addEventListener("change", () => {
      localStorage.setItem("tidegate-theme", select.value);
      document.documentElement.dataset.theme = select.value;
      document.dispatchEvent(new Event("theme"));
    });
  });
}
