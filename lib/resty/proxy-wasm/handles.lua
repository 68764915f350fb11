-- Plugin contexts that Lua holds, and how the library learns that it holds one no longer.
--
-- A finalizer for each context is what the collector offers for that. But it is interpreted, and costs more than to
-- make the context. So contexts stand in a weak table, from which the collector takes those that are unreachable. One
-- object with a finalizer says when a cycle of the collector is over, and then the table is looked through.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local ffi_copy = ffi.copy
local ffi_gc = ffi.gc
local ffi_new = ffi.new

local lib = clib.lib
-- For when the Lua VM is closed, which closes the library first.
local free = lib.rpw_context_free

local POINTER_SIZE = ffi.sizeof("void *")
local INITIAL = 64
-- What is freed in one go: a request that frees all of a cycle's would be felt.
local MOST = 32

-- By slots, which begin at 1: the handle, which may be gone; where it points, NULL where the slot is free.
local live = setmetatable({}, { __mode = "v" })
local capacity = INITIAL
local pointers = ffi_new("rpw_context_t *[?]", capacity)
-- Slots that were used so far.
local count = 0
local free_slots, free_count = {}, 0

-- Not 0 while the table is to be looked through.
local due = ffi_new("int32_t[1]")
-- How far that is done.
local cursor = 0

local function grow()
    local wider = ffi_new("rpw_context_t *[?]", capacity * 2)
    ffi_copy(wider, pointers, capacity * POINTER_SIZE)
    pointers = wider
    capacity = capacity * 2
end

local _M = { due = due }

-- Takes a context that was made.
function _M.keep(ctx)
    local slot
    if free_count > 0 then
        slot = free_slots[free_count]
        free_count = free_count - 1
    else
        count = count + 1
        slot = count
        if slot >= capacity then
            grow()
        end
    end
    live[slot] = ctx
    pointers[slot] = ctx
end

-- To be called while `due` says so.
function _M.sweep()
    local freed = 0
    while cursor < count do
        cursor = cursor + 1
        local slot = cursor
        if not live[slot] and pointers[slot] ~= nil then
            lib.rpw_context_free(pointers[slot])
            pointers[slot] = nil
            free_count = free_count + 1
            free_slots[free_count] = slot
            freed = freed + 1
            if freed >= MOST then
                return
            end
        end
    end
    cursor = 0
    due[0] = 0
end

-- The same for calls that take long anyway: all at once.
function _M.sweep_all()
    while due[0] ~= 0 do
        _M.sweep()
    end
end

local watch_cycles

local function on_cycle()
    due[0] = 1
    cursor = 0
    watch_cycles()
end

function watch_cycles()
    ffi_gc(ffi_new("char[1]"), on_cycle)
end

watch_cycles()

local function on_close()
    for slot = 1, count do
        if pointers[slot] ~= nil then
            free(pointers[slot])
            pointers[slot] = nil
        end
    end
end

-- Nothing but the end of the Lua VM takes this away: the handles may outlive the module.
debug.getregistry()[on_close] = ffi_gc(ffi_new("char[1]"), on_close)

return _M
