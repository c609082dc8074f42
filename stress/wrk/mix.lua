-- The official mix of the challenge, 220 debits : 110 credits : 10 statements over five clients, or over as many as the
-- argument says; or, with the argument `health`, nothing but GET /healthz. At the end one line of JSON for `cargo stress run`.

local DEBITS, CREDITS, STATEMENTS = 220, 110, 10
local VALUE_MAX = 10000
local clients = 5
-- Made once per thread and sent in turn: making each when it is due would cost the machine more than the balancer does.
local POOL_LEN = 20000

local threads = 0
-- Each thread's connections go to one of them. Without the variable, to where wrk itself is told.
local targets = {}
for host, port in (os.getenv("TARGETS") or ""):gmatch("http://([^:,]+):(%d+)") do
   targets[#targets + 1] = { host, port }
end

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
   if #targets > 1 then
      thread.addr = wrk.lookup(unpack(targets[threads % #targets + 1]))[1]
   end
end

local pool, position = {}, 0

local function random_request()
   local client = math.random(1, clients)
   local draw = math.random(1, DEBITS + CREDITS + STATEMENTS)
   if draw <= STATEMENTS then
      return wrk.format("GET", "/clientes/" .. client .. "/extrato")
   end
   local body = string.format('{"valor": %d, "tipo": "%s", "descricao": "descricao"}',
      math.random(1, VALUE_MAX), draw <= STATEMENTS + CREDITS and "c" or "d")
   return wrk.format("POST", "/clientes/" .. client .. "/transacoes", { ["Content-Type"] = "application/json" }, body)
end

function init(arguments)
   math.randomseed(number)
   if arguments[1] == "health" then
      pool = { wrk.format("GET", "/healthz") }
      return
   end
   clients = tonumber(arguments[1]) or clients
   for i = 1, POOL_LEN do
      pool[i] = random_request()
   end
end

function request()
   position = position % #pool + 1
   return pool[position]
end

function done(summary, latency)
   local errors = summary.errors
   local ms = function(percent) return latency:percentile(percent) / 1e3 end
   print(string.format('{"requests": %d, "duration_s": %.6f, "latency": {"mean_ms": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, '
      .. '"p99_ms": %.3f, "p99_9_ms": %.3f, "max_ms": %.3f}, "errors": {"connect": %d, "read": %d, "write": %d, '
      .. '"timeout": %d}, "refusals": %d}',
      summary.requests, summary.duration / 1e6, latency.mean / 1e3, ms(50), ms(90), ms(99), ms(99.9), latency.max / 1e3,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
