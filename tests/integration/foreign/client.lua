-- SPDX-License-Identifier: BSD-2-Clause
-- Neovim as a client: nvim --headless -c 'luafile client.lua', with HP_HOST set. It has no bin type, so
-- every string it sends is a str; an empty Lua table travels as an empty array. Its answers go to stdout.
local function say(what, value)
  io.stdout:write(what .. ' ' .. vim.fn.json_encode(value) .. '\n')
end

local function talk()
  local channel = vim.fn.sockconnect('tcp', vim.env.HP_HOST, { rpc = true })
  local function call(method, params)
    return vim.rpcrequest(channel, method, params)
  end
  say('hello', call('hello', { client = 'neovim', version = 1, session = '0123456789abcdef', events = true }))
  say('empty', call('broker.ping', {}).now_ms > 0)
  say('none', vim.rpcrequest(channel, 'broker.ping').now_ms > 0)
  local sum = call('task.submit', {
    number = 1,
    options = { kind = 2, fn = 'sum', tenant = vim.NIL },
    payloads = { '\147\1\2\3' },
  })
  say('submit', sum)
  local waited = call('task.wait', { ids = { sum.first }, timeout_ms = 20000 })
  say('wait', { state = waited.tasks[1].state, byte = string.byte(waited.tasks[1]['end'].result) })
  local hello = call('task.submit', {
    number = 2,
    options = { kind = 1, argv = { 'echo', 'from', 'neovim' } },
  })
  waited = call('task.wait', { ids = { hello.first } })
  say('command', waited.tasks[1]['end'].out)
  local ok, why = pcall(call, 'task.submit', { number = 3, options = { kind = 1, queue = 5 } })
  say('error', { ok = ok, why = tostring(why) })
  say('unknown', call('task.get', { ids = { 999999 } }).tasks[1].state)
  say('alive', call('broker.status', vim.empty_dict()).epoch)
end

local ok, why = pcall(talk)
if not ok then
  say('failed', tostring(why))
end
vim.cmd(ok and 'qall!' or 'cquit!')
