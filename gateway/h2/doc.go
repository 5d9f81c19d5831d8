// Package h2 is HTTP/2 at frame level (RFC 9113): a connection's own
// conversation, its streams and windows, and the moving of frames from a stream
// of one connection to a stream of another without a goroutine, a message buffer
// or an http.Header for each RPC.
//
// What ends at each hop: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, compression
// tables, stream numbers. What is carried across: header fields, DATA payload, end
// of stream, the reason of a reset, 1xx responses, trailers.
//
//	frame          size of payload            ends here or goes on
//	DATA           0..16384                   payload goes on
//	HEADERS        0..16384 (+ CONTINUATION)  fields go on
//	PRIORITY       5                          counted, else ignored
//	RST_STREAM     4                          code goes on
//	SETTINGS       6 each, at most 100        ends here
//	PUSH_PROMISE   -                          refused
//	PING           8                          ends here
//	GOAWAY         8 + debug data             ends here
//	WINDOW_UPDATE  4                          ends here
//
// # Who owns what
//
// Each connection has one reader goroutine, in [Conn.Run]. It parses what has
// arrived, hands the events of streams to their [Sink] and, when its input is
// drained, flushes every connection that the sinks wrote to: a [Batch] remembers
// which. Anyone may write to a stream. The output (buffer, compression table,
// windows, queues, stream map) is under the connection's mutex, and nobody holds
// the mutexes of two connections. A socket that does not take everything at once
// gets a writer goroutine for as long as output is pending; it then owns the
// socket, and everybody else only appends.
package h2
