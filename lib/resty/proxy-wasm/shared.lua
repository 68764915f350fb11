-- Shared data for Lua: values that filters and Lua exchange, in all workers.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local error = error
local ffi_str = ffi.string
local format = string.format
local type = type

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local CONTINUE = const.RPW_CONTINUE
local MISSING = const.RPW_MISSING
local MISMATCH = const.RPW_MISMATCH

local MOST_KEYS = 1024
local MAX_CAS = 2 ^ 32 - 1

local value_slot = ffi.new("rpw_value_t")
local cas_slot = ffi.new("uint32_t[1]")
local list_slot = ffi.new("const rpw_pair_t *[1]")
local count_slot = ffi.new("size_t[1]")

local function check_string(value, number, name)
    if type(value) ~= "string" then
        error(format("bad argument #%d to '%s' (string expected, got %s)", number, name, type(value)), 3)
    end
end

local function check_number(value, number, name, most)
    local ok = type(value) == "number" and value >= 0 and value <= most and value % 1 == 0
    if not ok then
        error(format("bad argument #%d to '%s' (a whole number from 0 to %d expected)", number, name, most), 3)
    end
end

local methods = {}
local metatable = { __index = methods }

function methods:get(key)
    check_string(key, 1, "get")
    local vm_id = self.vm_id
    local rc = lib.rpw_shared_get(vm_id, #vm_id, key, #key, value_slot, error_slot)
    if rc == CONTINUE then
        return ffi_str(value_slot.data, value_slot.length), value_slot.cas
    elseif rc == MISSING then
        return nil
    end
    return nil, last_error()
end

function methods:set(key, value, cas)
    check_string(key, 1, "set")
    check_string(value, 2, "set")
    if cas ~= nil then
        check_number(cas, 3, "set", MAX_CAS)
    end
    local vm_id = self.vm_id
    cas_slot[0] = cas or 0
    local rc = lib.rpw_shared_set(vm_id, #vm_id, key, #key, value, #value, cas_slot, error_slot)
    if rc == CONTINUE then
        return cas_slot[0]
    elseif rc == MISMATCH then
        return nil, "cas mismatch"
    end
    return nil, last_error()
end

function methods:delete(key)
    check_string(key, 1, "delete")
    local vm_id = self.vm_id
    local rc = lib.rpw_shared_delete(vm_id, #vm_id, key, #key, error_slot)
    if rc == CONTINUE or rc == MISSING then
        return rc == CONTINUE
    end
    return nil, last_error()
end

function methods:keys(most)
    if most == nil then
        most = MOST_KEYS
    else
        check_number(most, 1, "keys", MAX_CAS)
    end
    local vm_id = self.vm_id
    local rc = lib.rpw_shared_keys(vm_id, #vm_id, most, list_slot, count_slot, error_slot)
    if rc < 0 then
        return nil, last_error()
    end
    local keys, list = {}, list_slot[0]
    for at = 1, tonumber(count_slot[0]) do
        local key = list[at - 1]
        keys[at] = ffi_str(key.name, key.name_length)
    end
    return keys
end

local _M = {}

function _M.new(vm_id)
    if vm_id == nil then
        vm_id = ""
    elseif type(vm_id) ~= "string" then
        error(format("bad argument #1 to 'shared' (string expected, got %s)", type(vm_id)), 3)
    end
    return setmetatable({ vm_id = vm_id }, metatable)
end

return _M
