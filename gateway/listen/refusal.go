package listen

import (
	"io"
	"time"
)

// What peers are told whose protocol is not served here.
const (
	// An alert of level fatal, handshake_failure (RFC 8446, section 6).
	refusalTLS = "\x15\x03\x01\x00\x02\x02\x28"

	// Empty SETTINGS, then GOAWAY with INADEQUATE_SECURITY and a word of why.
	refusalHTTP2 = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
		"\x00\x00\x20\x07\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x0c" + "this port takes TLS only"

	refusalHTTP1 = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: 25\r\nConnection: close\r\n\r\nThis port takes TLS only\n"
)

const (
	// refusalTime is how long a refused connection may take to read its answer.
	refusalTime = 500 * time.Millisecond
	// refusalBytes is how much of what it sends meanwhile is read: bytes that are
	// not read turn the close into a reset, which takes the answer away.
	refusalBytes = 64 << 10
)

// part says that nothing more will come, and gives the peer a moment to read what
// has. It is closed then.
func part(c *conn) {
	if c.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(refusalTime))
	io.CopyN(io.Discard, c, refusalBytes)
}
