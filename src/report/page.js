const root = document.documentElement;
const dark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

const toggle = document.getElementById("theme");
toggle.hidden = false;
const name = () => (toggle.textContent = dark() ? "Light" : "Dark");
name();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
toggle.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try {
    localStorage.setItem("runner-theme", root.dataset.theme);
  } catch { /* Not remembered then. */ }
  name();
});

// A link to a folded section unfolds it.
const unfold = () => {
  let at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => {
  const link = event.target.closest && event.target.closest('a[href^="#"]');
  // The address does not change when the same link is followed again.
  if (link && link.getAttribute("href") === location.hash) unfold();
});
unfold();

const nodes = document.querySelectorAll("details.node");
const all = document.getElementById("unfold");
if (all) {
  all.hidden = false;
  all.addEventListener("click", () => {
    const open = ![...nodes].every((node) => node.open);
    for (const node of nodes) node.open = open;
    all.textContent = open ? "Fold all" : "Unfold all";
  });
}
// Paper cannot be clicked.
addEventListener("beforeprint", () => {
  if (nodes.length <= 60) for (const node of nodes) node.open = true;
});
