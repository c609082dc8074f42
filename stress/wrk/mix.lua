-- The official mix of the challenge, 220 debits : 110 credits : 10 statements over five clients; or, with the argument
-- `health`, nothing but GET /healthz. At the end one line of JSON for `cargo stress run`.

local DEBITS, CREDITS, STATEMENTS = 220, 110, 10
local CLIENTS, VALUE_MAX = 5, 10000
-- Made once per thread and sent in turn: making each when it is due would cost the machine more than the balancer does.
local POOL_LEN = 20000

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

local pool, position = {}, 0

local function random_request()
   local client = math.random(1, CLIENTS)
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
   local us = function(percent) return latency:percentile(percent) end
   print(string.format('{"requests": %d, "duration_us": %d, "mean_us": %.3f, "p50_us": %d, "p90_us": %d, "p99_us": %d, '
      .. '"p99_9_us": %d, "max_us": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}',
      summary.requests, summary.duration, latency.mean, us(50), us(90), us(99), us(99.9), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
