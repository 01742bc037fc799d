// The page around noVNC: connects to the stream that it lies below, says what is the matter, and waits for a guest
// that does not run. It knows no credentials: whatever brought the page here brings the stream too.
import RFB from './novnc/core/rfb.js';

const LOOK_AGAIN = 3000; // milliseconds
const CONNECT = 30000; // milliseconds, within which the guest's screen must answer
const PROTOCOL = 'plain.kubevirt.io';

const here = location.pathname.match(
  /^(.*\/namespaces\/([^/]+)\/virtualmachineinstances\/([^/]+)\/vnc)\/page$/,
);
const stream = new URL(here[1], location.href);
stream.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
const title = `${decodeURIComponent(here[2])}/${decodeURIComponent(here[3])}`;

const place = (id) => document.getElementById(id);
let rfb = null;
let timer = 0;

function show(state, message) {
  document.body.dataset.state = state;
  place('message').textContent = message;
  place('keys').disabled = state !== 'connected';
}

// What virt-api says, or why it could not be asked.
async function look() {
  try {
    const answer = await fetch('page/state', { cache: 'no-store' });
    const said = await answer.text();
    if (answer.ok) return JSON.parse(said);
    return { message: `${answer.status}: ${reason(said) || answer.statusText}` };
  } catch {
    return { waiting: true, message: 'the API server cannot be reached' };
  }
}

// Errors are Kubernetes' Status objects, or plain text.
function reason(said) {
  try {
    return JSON.parse(said).message;
  } catch {
    return said;
  }
}

// Connect if there is a screen; else say why not, and ask again as long as that may change.
async function connect() {
  clearTimeout(timer);
  const seen = await look();
  if (rfb) return;
  if (seen.ready) {
    open();
  } else {
    wait(seen);
  }
}

function wait(seen) {
  if (seen.waiting) {
    show('waiting', `Waiting for ${title}: ${seen.message}`);
    timer = setTimeout(connect, LOOK_AGAIN);
  } else {
    show('refused', `No screen: ${seen.message}`);
  }
}

function open() {
  show('connecting', 'Connecting');
  const session = new RFB(place('screen'), stream.href, { wsProtocols: [PROTOCOL] });
  rfb = session;
  fit();
  timer = setTimeout(() => session.disconnect(), CONNECT);
  let cause = 'the screen did not answer';
  session.addEventListener('connect', () => {
    clearTimeout(timer);
    cause = 'somebody else has opened this screen, or the connection was lost';
    show('connected', 'Connected');
    session.focus();
  });
  session.addEventListener('credentialsrequired', () => {
    cause = 'the screen wants a password';
    session.disconnect();
  });
  session.addEventListener('securityfailure', (event) => {
    cause = event.detail.reason || 'the screen refused the connection';
  });
  session.addEventListener('disconnect', () => {
    clearTimeout(timer);
    rfb = null;
    show('disconnected', `Disconnected: ${cause}`);
    watch();
  });
}

// After an end: if it was the guest's, wait for its next start. Otherwise people decide, so that two pages do not take
// the screen away from each other for ever.
async function watch() {
  const seen = await look();
  if (rfb || document.body.dataset.state !== 'disconnected') return;
  if (seen.ready) {
    timer = setTimeout(watch, LOOK_AGAIN);
  } else {
    wait(seen);
  }
}

function fit() {
  if (rfb) rfb.scaleViewport = place('fit').checked;
}

document.title = title;
place('name').textContent = title;
place('reconnect').addEventListener('click', () => {
  show('connecting', 'Connecting');
  connect();
});
place('fit').addEventListener('change', fit);
place('keys').addEventListener('click', () => {
  rfb.sendCtrlAltDel();
  rfb.focus();
});
connect();
