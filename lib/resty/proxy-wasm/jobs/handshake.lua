-- The TLS that nginx speaks on a cosocket.

local format = string.format
local pcall = pcall

-- Begins it; the certificate must have that name. Nil and the cause when it cannot be spoken.
--
-- Some releases of lua-resty-core raise an error ("assertion failed!") in place of returning the cause, when a
-- certificate is refused in a handshake that ends at once.
return function(sock, server_name)
    local ran, session, err = pcall(sock.sslhandshake, sock, nil, server_name, true)
    if not ran then
        return nil, format("the handshake failed, or its certificate is not one for %s (%s)", server_name, session)
    elseif not session then
        return nil, err
    end
    return true
end
