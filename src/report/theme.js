// Runs before anything is drawn, so that a remembered theme does not flash.
try {
  const theme = localStorage.getItem("runner-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* Storage may be forbidden; the system's theme stays. */ }
