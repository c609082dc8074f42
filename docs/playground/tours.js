// The guided tours. Each begins a world with its settings, and each stop says what is to be seen, does something to the world,
// and lets it run until that can be seen. `until` is asked after each step; it must come true within STEPS_MAX steps.

export const STEPS_MAX = 30000;

const lane = (now, index = 0) => now.instances[0].lanes[index];
const stage = (name) => (now) => now.hand.stage === name;
const isAnswered = (client) => (now) => now.peers[client].asked.length === 0 && now.peers[client].last;
const all = (clients, test) => clients.every(test);
const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** What crosses, if its batches are not sorted. */
const CROSSED = ["lock 1", "ask 0 credit 2 10", "ask 1 credit 1 10"];

export const TOURS = [
  {
    id: "request",
    settings: "clients=2 lanes=1 commit=2000",
    stops: [
      {
        say: "Client 0 asks for a credit of 10 cents. Its 117 bytes lie in the socket of the server now; nobody has read them.",
        do: ["ask 0 credit 1 10"],
        until: (now) => now.peers[0].forth_bytes > 0,
        look: "clients", wire: "client 0",
      },
      { say: "epoll tells that the socket is readable, and a turn begins. An event only sets a flag: nothing is read yet.", until: stage("wait"), look: "turn-stages" },
      { say: "Receive: the bytes go into the client's inbox.", until: stage("receive"), look: "clients" },
      {
        say: "Advance: the client finds a complete request and hands its call out. Its phase is Awaiting. The lane is free, so the call goes as a batch of one.",
        until: stage("advance"), look: "server",
      },
      {
        say: "Send: Bind, Execute and Sync leave in one write. Under “On the wire” they are told field by field.",
        until: (now) => now.hand.stage === "send" && lane(now).forth_bytes > 0, look: "wire", wire: "lane 0 0",
      },
      {
        say: "PostgreSQL runs the call and commits. The row is in the ledger, and the reply is on its way; the client still waits.",
        until: (now) => now.ledger_rows === 1 && lane(now).back_bytes > 0, look: "postgres",
      },
      {
        say: "The next turn reads the reply. ReadyForQuery behind the Sync says that the commit is done: only now is the answer written.",
        until: (now) => now.hand.stage === "advance" && now.peers[0].phase === "Idle", look: "wire", wire: "lane 0 0",
      },
      { say: "The client reads its 200. Two turns, one write to PostgreSQL, one read from it.", until: isAnswered(0), look: "clients", wire: "client 0" },
    ],
  },
  {
    id: "crowd",
    settings: "clients=12 lanes=1 commit=20000",
    stops: [
      { say: "Client 0 asks alone. Nobody else waits, so its call goes at once, as a batch of one.", do: ["ask 0 credit 1 1"], until: (now) => lane(now).batches.length === 1, look: "server" },
      {
        say: "While PostgreSQL works on that, eleven others ask. The only lane has a batch out: they gather in the queue.",
        do: range(1, 12).map((client) => `ask ${client} credit ${1 + (client % 5)} 1`),
        until: (now) => now.instances[0].queued === 11, look: "server",
      },
      {
        say: "The commit has come, and the lane is free. All eleven go as one batch: one set, one Sync, one write, sorted by account.",
        until: (now) => lane(now).batches[0]?.calls === 11, look: "server", wire: "lane 0 0",
      },
      {
        say: "PostgreSQL pays for one commit, and eleven clients are answered: twelve calls took two commits.",
        until: (now) => all(range(0, 12), (client) => isAnswered(client)(now)), look: "numbers",
      },
      {
        say: "The more ask, the larger the batches: now 64 clients ask 3,000 times a second, though PostgreSQL commits 50 times. Nobody set a batch size.",
        do: ["clients 64", "load 3000"], until: (now) => now.tally.committed_batches >= 14, look: "numbers",
      },
    ],
  },
  {
    id: "commit",
    settings: "clients=2 lanes=1 commit=5000",
    stops: [
      { say: "Client 0 asks for a debit of 7 cents.", do: ["ask 0 debit 2 7"], until: (now) => lane(now).batches.length === 1, look: "server" },
      {
        say: "PostgreSQL has run the call: the balance is reckoned, but only its own session sees that. No commit yet.",
        until: (now) => now.sessions[0].uncommitted.length === 1, look: "postgres",
      },
      {
        say: "We hold the link, as a network does that is slow at the wrong moment. PostgreSQL has committed; its reply lies on the wire.",
        do: ["hold 0"], until: (now) => lane(now).back_bytes > 0, look: "postgres",
      },
      {
        say: "All of the reply but its last six bytes gets through. The server knows the balance now, and still says nothing: the lane holds the answer.",
        do: [(now) => `pass 0 ${lane(now).back_bytes - 6}`], until: (now) => lane(now).held_answers === 1 && now.hand.stage === "", look: "server", wire: "lane 0 0",
      },
      {
        say: "The last six bytes are ReadyForQuery: the transaction is committed. Now the client gets its 200.",
        do: ["release 0"], until: isAnswered(0), look: "clients", wire: "lane 0 0",
      },
    ],
  },
  {
    id: "doubt",
    settings: "clients=2 lanes=1 commit=5000",
    stops: [
      { say: "Client 0 asks for a credit of 10 cents, and its batch leaves.", do: ["ask 0 credit 1 10"], until: (now) => now.sessions[0].received_bytes > 0, look: "server" },
      { say: "PostgreSQL commits. The reply is on its way.", do: ["hold 0"], until: (now) => now.ledger_rows === 1 && lane(now).back_bytes > 0, look: "postgres" },
      {
        say: "The link breaks between two bytes: seven of the reply still arrive. The server cannot know whether the commit took place.",
        do: ["cut 0 0 7"], until: (now) => lane(now).state !== "Ready", look: "server",
      },
      {
        say: "So it says just that: 503, “whether it was done is not known”. It does not send the call again: here the row is in the ledger, and a second run would pay twice.",
        until: isAnswered(0), look: "clients", wire: "client 0",
      },
      { say: "The lane connects again. The next request is served as if nothing had been.", do: ["ask 1 statement 1"], until: (now) => isAnswered(1)(now) && now.peers[1].last.status === 200, look: "clients", wire: "client 1" },
    ],
  },
  {
    id: "deadlock",
    settings: "clients=2 lanes=1 set=257 commit=3000",
    stops: [
      {
        say: "Somebody with psql has locked row 1. Two clients ask: for account 2, and then for account 1. Both calls go as one batch.",
        do: CROSSED, until: (now) => lane(now).batches[0]?.calls === 2, look: "server", wire: "lane 0 0",
      },
      {
        say: "The batch is sorted by account, so it wants row 1 first, and waits for it. Meanwhile it holds no row that anybody else could want.",
        until: (now) => now.sessions.some((session) => session.waits_for === 1), look: "postgres",
      },
      { say: "The row is free again: the batch takes row 1 and then row 2, and both are answered. All batches of all instances lock in this order, so one of them can always finish.", do: ["unlock"], until: (now) => all(range(0, 2), (client) => isAnswered(client)(now)), look: "clients" },
      {
        say: "Now the same with the engine whose batches are not sorted: the patch batch-unsorted takes one line out. The same two ask.",
        bug: "batch-unsorted", do: CROSSED, until: (now) => lane(now).batches[0]?.calls === 2, look: "server", wire: "lane 0 0",
      },
      {
        say: "This batch has locked row 2 and waits for row 1. Another one, from the other instance, that has row 1 and wants row 2 would wait for it: neither could ever go on. The check LockOrder goes red as soon as the order is broken.",
        until: (now) => now.violation?.check === "LockOrder", look: "postgres",
      },
    ],
  },
  {
    id: "overload",
    settings: "clients=64 lanes=1 batch=8 commit=40000 wait=200",
    stops: [
      {
        say: "PostgreSQL takes 40 ms for a commit, and a batch has 8 calls at most: that is 200 calls a second. 100 are asked.",
        do: ["load 100"], until: (now) => now.tally.committed_batches >= 5, look: "numbers",
      },
      {
        say: "Now 1,500 a second. The queue grows. The engine measures how fast it drains, and expects the wait of one more call.",
        do: ["load 1500"], until: (now) => now.instances[0].queued >= 30, look: "server",
      },
      {
        say: "Beyond QUEUE_WAIT_MAX_MS, 200 here, it refuses at once: 503, “too many requests wait; nothing was done”. A client knows where it stands, and PostgreSQL works for those who can still be served.",
        until: (now) => now.tally.answers.some((answer) => answer.problem.startsWith("too many")), look: "numbers",
      },
      { say: "The crowd has gone. The queue drains, and whoever asks is served.", do: ["load 0"], until: (now) => now.instances[0].queued === 0 && now.peers.every((peer) => peer.asked.length === 0), look: "server" },
      { say: "One more request: 200 again.", do: ["ask 0 credit 1 10"], until: (now) => isAnswered(0)(now) && now.peers[0].last.status === 200, look: "clients" },
    ],
  },
];
