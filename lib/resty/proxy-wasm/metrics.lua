-- Metrics for Lua, and for Prometheus.

-- Interpreted: metrics are read now and then, and no filter waits for them. LuaJIT of Debian 12 compiles the list of
-- metrics into code that ends with an illegal instruction on arm64.
jit.off(true, true)

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local concat = table.concat
local ffi_str = ffi.string
local format = string.format
local tonumber = tonumber

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local list_slot = ffi.new("const rpw_metric_t *[1]")
local text_slot = ffi.new("const char *[1]")
local size_slot = ffi.new("size_t[1]")

local function labels_of(metric)
    local labels = {}
    for at = 0, tonumber(metric.labels_length) - 1 do
        local pair = metric.labels[at]
        labels[ffi_str(pair.name, pair.name_length)] = ffi_str(pair.value, pair.value_length)
    end
    return labels
end

local function describe(metric)
    local described = {
        name = ffi_str(metric.name, metric.name_length),
        type = ffi_str(metric.kind, metric.kind_length),
        labels = labels_of(metric),
    }
    local ends = tonumber(metric.buckets_length)
    if ends == 0 then
        described.value = metric.value
        return described
    end
    local buckets = {}
    for at = 1, ends do
        local bucket = metric.buckets[at - 1]
        buckets[at] = { le = bucket.le, count = tonumber(bucket.count) }
    end
    described.buckets, described.sum, described.count = buckets, metric.value, buckets[ends].count
    return described
end

local _M = {}

function _M.list()
    if lib.rpw_metrics(list_slot, size_slot, error_slot) < 0 then
        return nil, last_error()
    end
    local all = {}
    for at = 1, tonumber(size_slot[0]) do
        all[at] = describe(list_slot[0][at - 1])
    end
    return all
end

function _M.prometheus()
    if lib.rpw_prometheus(text_slot, size_slot, error_slot) < 0 then
        return nil, last_error()
    end
    return ffi_str(text_slot[0], size_slot[0])
end

local presences_slot = ffi.new("const rpw_presence_t *[1]")

local function hexadecimal(bytes, size)
    local out = {}
    for at = 0, size - 1 do
        out[at + 1] = format("%02x", bytes[at])
    end
    return concat(out)
end

-- What a load in the background is at.
local STAGES = { [0] = "queued", "reading", "waiting", "compiling", "finishing" }

local function is_compiling(row)
    return row.loading > 0 and row.loading_functions > 0
end

-- The plugins, by name, each with the workers that have it.
function _M.plugins()
    if lib.rpw_presences(presences_slot, size_slot, error_slot) < 0 then
        return nil, last_error()
    end
    local all, last = {}, nil
    for at = 0, tonumber(size_slot[0]) - 1 do
        local row = presences_slot[0][at]
        local name = ffi_str(row.name, row.name_length)
        if not last or last.name ~= name then
            last = { name = name, workers = {} }
            all[#all + 1] = last
        end
        local has_failed = row.error_at > 0
        last.workers[#last.workers + 1] = {
            pid = row.pid,
            digest = row.since > 0 and hexadecimal(row.digest, 32) or nil,
            version = row.version,
            state = row.loading > 0 and "loading" or row.failing ~= 0 and "failing" or "running",
            since = row.since,
            contexts = row.contexts,
            streams = row.streams,
            memory = row.memory,
            memory_limit = row.memory_limit,
            traps = row.traps,
            loading_since = row.loading > 0 and row.loading_since or nil,
            loading_stage = row.loading > 0 and STAGES[row.loading_stage] or nil,
            functions = is_compiling(row) and row.loading_functions or nil,
            functions_compiled = is_compiling(row) and row.loading_compiled or nil,
            last_error = has_failed and ffi_str(row.error, row.error_length) or nil,
            last_error_at = has_failed and row.error_at or nil,
        }
    end
    return all
end

return _M
