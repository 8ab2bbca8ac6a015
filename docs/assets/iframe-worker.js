// Browsers start no worker for a page that was opened as a file, and the search would find nothing
// there. This one runs its script in a hidden frame. By the name IFrameWorker the theme's script
// finds its own files, and MkDocs' plugin `offline` sees that it need not fetch such a class.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.onload = () => this.begin(frame.contentWindow, url);
      document.body.append(frame);
    }

    begin(inside, url) {
      // what a worker posts goes to the page that has started it
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.inside = inside;
        this.waiting.forEach((data) => this.postMessage(data));
      };
      inside.document.body.append(script);
    }

    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new MessageEvent("message", { data }));
      else this.waiting.push(data);
    }
  };
  window.Worker = window.IFrameWorker;
}
