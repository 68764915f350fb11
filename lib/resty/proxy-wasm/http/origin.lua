-- Asks another server for the response to the running request, over a cosocket, and reads it piece by piece.
-- A subrequest would be in memory as a whole before Lua sees anything of it.
--
-- The server is meant to be nginx's own, at a unix socket, say. So there is no TLS, and no connection is kept: what a
-- response leaves behind is never taken for another one.

local header_lines = require("resty.proxy-wasm.http.header_lines")

local byte = string.byte
local concat = table.concat
local format = string.format
local min = math.min
local ngx = ngx
local ngx_req = ngx.req
local open = io.open
local pairs = pairs
local tcp = ngx.socket.tcp
local tonumber = tonumber
local type = type

-- What is read at once, of the response and of a request's body that is in a file.
local CHUNK = 65536
-- A head of a response. Responses of nginx have less, since it caps those of its upstreams.
local HEAD = 1048576
local CONNECT_MS = 60000
-- The server's own timeouts are those that matter.
local LONGEST_MS = 2 ^ 31 - 1

local NOT_SENT = {
    ["connection"] = true,
    ["keep-alive"] = true,
    ["proxy-connection"] = true,
    ["te"] = true,
    ["trailer"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
    ["expect"] = true,
    ["content-length"] = true,
}

local SWITCHING_PROTOCOLS = 101

-- The path of the request as filters left it, in the form in which it is sent. nginx keeps it decoded.
local function target()
    local uri = ngx.var.uri:gsub("[^%w%-._~!$&'()*+,;=:@/]", function(c)
        return format("%%%02X", byte(c))
    end)
    local args = ngx.var.args
    return args and args ~= "" and uri .. "?" .. args or uri
end

local function head_of_request(length)
    local lines = { ngx_req.get_method() .. " " .. target() .. " HTTP/1.1" }
    for name, value in pairs(ngx_req.get_headers(0, true)) do
        if not NOT_SENT[name:lower()] then
            for _, each in ipairs(type(value) == "table" and value or { value }) do
                lines[#lines + 1] = name .. ": " .. (each == true and "" or each)
            end
        end
    end
    lines[#lines + 1] = "Connection: close"
    if length then
        lines[#lines + 1] = "Content-Length: " .. length
    end
    lines[#lines + 1] = "\r\n"
    return concat(lines, "\r\n")
end

local function send_file(sock, file)
    while true do
        local piece = file:read(CHUNK)
        if not piece then
            return true
        end
        local ok, err = sock:send(piece)
        if not ok then
            return nil, err
        end
    end
end

local function send_request(sock)
    ngx_req.read_body()
    local data = ngx_req.get_body_data()
    local name = not data and ngx_req.get_body_file()
    local file, err
    if name then
        file, err = open(name, "rb")
        if not file then
            return nil, err
        end
    end
    local ok
    ok, err = sock:send(head_of_request(data and #data or file and file:seek("end")) .. (data or ""))
    if file then
        file:seek("set")
        if ok then
            ok, err = send_file(sock, file)
        end
        file:close()
    end
    return ok, err
end

-- Reads until `pattern`, and no more than `most` bytes. Returns what is before it.
local function read_until(sock, pattern, most)
    local read = sock:receiveuntil(pattern)
    local parts, size = {}, 0
    while true do
        local part, err = read(4096)
        if err then
            return nil, err
        elseif not part then
            return concat(parts)
        end
        size = size + #part
        if size > most then
            return nil, "a line or a head is too long"
        end
        parts[#parts + 1] = part
    end
end

-- Returns the status, and the headers: name in lower case, name and value, one behind the other.
local function parse(head)
    local status = tonumber(head:match("^HTTP/1%.%d (%d%d%d)[ \r]") or head:match("^HTTP/1%.%d (%d%d%d)$"))
    if not status then
        return nil, "the response has no status"
    end
    local headers = {}
    local lines = head:match("\r\n(.*)")
    for line in ((lines or "") .. "\r\n"):gmatch("(.-)\r\n") do
        if line ~= "" then
            local name, value = line:match("^([%w!#$%%&'*+%-.^_`|~]+):[ \t]*(.-)[ \t]*$")
            if not name or value:find("[\r\n%z]") then
                return nil, "the response has a bad header"
            end
            headers[#headers + 1] = { lower = name:lower(), name = name, value = value }
        end
    end
    return status, headers
end

-- Notes how the end of the body is found. Returns true, or nil and why it cannot be.
local function frame(self, status, headers)
    local length
    for i = 1, #headers do
        local header = headers[i]
        if header.lower == "transfer-encoding" then
            if header.value:lower() ~= "chunked" then
                return nil, "the response has a transfer-encoding that is not known"
            end
            self.chunked = true
        elseif header.lower == "content-length" then
            if not header.value:find("^%d+$") or length and length ~= header.value then
                return nil, "the response has a bad content-length"
            end
            length = header.value
        end
    end
    if ngx_req.get_method() == "HEAD" or status == 204 or status == 304 then
        self.chunked, self.left = false, 0
    elseif self.chunked then
        self.left = 0
    else
        self.left = tonumber(length)
    end
    return true
end

local Origin = {}
Origin.__index = Origin

-- Returns the size of the next chunk, 0 for the end of the body.
local function next_chunk(sock)
    local line, err = read_until(sock, "\r\n", HEAD)
    if not line then
        return nil, err
    end
    local digits = line:match("^(%x+)[ \t]*$") or line:match("^(%x+)[ \t]*;")
    local size = digits and tonumber(digits, 16)
    if not size or size >= 2 ^ 53 then
        return nil, "the response has a bad chunk"
    end
    while size == 0 and line ~= "" do
        -- Trailers.
        line, err = read_until(sock, "\r\n", HEAD)
        if not line then
            return nil, err
        end
    end
    return size
end

-- Returns the next piece and whether it is known to be the last one; an empty last one when that shows only now;
-- nil and why there is none.
function Origin:read()
    local sock, left = self.sock, self.left
    if left == 0 then
        if not self.chunked then
            return "", true
        end
        local err
        left, err = next_chunk(sock)
        if not left then
            return nil, err
        elseif left == 0 then
            return "", true
        end
    end
    local piece, err = sock:receiveany(left and min(left, CHUNK) or CHUNK)
    if not piece then
        if err == "closed" and not left then
            return "", true
        end
        return nil, err
    end
    if left then
        left = left - #piece
        self.left = left
        if left == 0 and self.chunked then
            local ending
            ending, err = sock:receive(2)
            if ending ~= "\r\n" then
                return nil, err or "the response has a bad chunk"
            end
        end
    end
    return piece, left == 0 and not self.chunked
end

function Origin:close()
    self.sock:close()
end

local _M = {}

-- What an address says, for `ask`: the arguments of `connect`. Nil for what is none.
function _M.address(text)
    if text:find("^unix:.") then
        return { text }
    end
    local host, port = text:match("^(%[[%x:.]+%]):(%d+)$")
    if not host then
        host, port = text:match("^([%w%-._]+):(%d+)$")
    end
    port = tonumber(port)
    return port and port > 0 and port < 65536 and { host, port } or nil
end

-- Sends the running request as filters left it. Returns what reads the response, its status and its headers; nil and
-- why not.
function _M.ask(address)
    local sock, err = tcp()
    if not sock then
        return nil, err
    end
    sock:settimeouts(CONNECT_MS, CONNECT_MS, LONGEST_MS)
    local ok
    if address[2] then
        ok, err = sock:connect(address[1], address[2])
    else
        ok, err = sock:connect(address[1])
    end
    if not ok then
        return nil, err
    end
    ok, err = send_request(sock)
    local status, headers
    repeat
        -- A server that refuses a body closes the connection before it has read it, and says why.
        local head, failed = read_until(sock, "\r\n\r\n", HEAD)
        if not head then
            sock:close()
            return nil, not ok and err or failed
        end
        status, headers = parse(head)
        if status == SWITCHING_PROTOCOLS then
            status, headers = nil, "the server switches the protocol"
        end
        if not status then
            sock:close()
            return nil, headers
        end
    until status >= 200
    local self = setmetatable({ sock = sock }, Origin)
    ok, err = frame(self, status, headers)
    if not ok then
        sock:close()
        return nil, err
    end
    return self, status, headers
end

-- Has nginx's own response begin as that one does.
function _M.show(status, headers)
    ngx.status = status
    local seen = {}
    for i = 1, #headers do
        local lower, name = headers[i].lower, headers[i].name
        if lower ~= "content-length" and not header_lines.is_of_connection(lower) then
            local before = seen[lower]
            local values = before or {}
            values[#values + 1] = headers[i].value
            seen[lower] = values
            ngx.header[name] = before and values or values[1]
        end
    end
end

return _M
