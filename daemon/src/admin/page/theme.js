// Light or dark, before anything is painted: what was chosen here before, or else what the system says.

const THEME = "vidente-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosenTheme() {
  try {
    const kept = localStorage.getItem(THEME);
    return kept === "light" || kept === "dark" ? kept : "auto";
  } catch {
    return "auto";
  }
}

function showTheme(chosen) {
  const theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = theme;
  dispatchEvent(new CustomEvent("theme", { detail: chosen }));
}

window.theme = {
  chosen: chosenTheme,
  choose(theme) {
    try {
      if (theme === "auto") localStorage.removeItem(THEME);
      else localStorage.setItem(THEME, theme);
    } catch { /* then it holds until the page is left */ }
    showTheme(theme);
  },
};
dark.addEventListener("change", () => showTheme(chosenTheme()));
showTheme(chosenTheme());
