package h2

// Batch remembers the connections that were written to since the last Flush. It
// belongs to one goroutine: a connection's reader, a timer, a handler. The zero
// value is empty.
type Batch struct {
	conns []*Conn
}

// touch notes c, whose mutex the caller holds.
func (b *Batch) touch(c *Conn) {
	if c.inBatch == b {
		return
	}
	c.inBatch = b
	b.conns = append(b.conns, c)
}

// Flush offers each connection's output to its socket. It never blocks.
func (b *Batch) Flush() {
	// A flush returns credit to the senders of what it has written, and so may
	// touch further connections.
	for i := 0; i < len(b.conns); i++ {
		b.conns[i].flush(b)
	}
	clear(b.conns)
	b.conns = b.conns[:0]
}
