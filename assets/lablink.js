// Runs before anything is drawn: the theme (no flash), and whether the socket is there.
(() => {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => localStorage.getItem("lablink-theme") || (prefersDark.matches ? "dark" : "light");
  const apply = () => (root.dataset.theme = theme());
  apply();
  prefersDark.addEventListener("change", apply);
  window.lablinkToggleTheme = () => {
    localStorage.setItem("lablink-theme", theme() === "dark" ? "light" : "dark");
    apply();
  };
  // A page that says "one moment" looks for itself when the moment is over.
  if ("retry" in root.dataset)
    setInterval(() => fetch("/readyz").then((answer) => answer.ok && location.reload(), () => {}), 2000);
  let missed = 0;
  setInterval(() => {
    // NiceGUI keeps its socket here; one missed look may be a page that is still starting.
    missed = window.socket && window.socket.connected ? 0 : missed + 1;
    root.dataset.socket = missed > 3 ? "off" : "on";
  }, 500);
  window.lablinkClaim = async (form) => {
    const error = form.querySelector("[data-testid=claim-error]");
    const button = form.querySelector("[data-testid=claim-submit]");
    const value = (name) => form.elements[name]?.value.trim() || null;
    error.textContent = "";
    button.disabled = true;
    try {
      const body = { email: value("email") || "", pool: form.dataset.pool };
      if (value("code")) body.code = value("code");
      // By fetch and not by the socket: the browser's own cookie decides whose seat it is, in every tab.
      const response = await fetch("/api/request_vm", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      if (response.ok) return location.assign("/seat");
      error.textContent = (await response.json()).error.message;
    } catch {
      error.textContent = "The server does not answer. Check your connection and try again.";
    }
    button.disabled = false;
  };
})();
