// Package wire is gRPC as it stands on the wire: the status, the message, the
// timeout, the content type, the path, binary metadata and the 5-byte prefix.
//
// Everything here is a pure function over bytes that a peer chose, so nothing
// fails loudly: a value is either understood or it is not. It knows nothing of
// HTTP/2 frames, of routes or of connections. Nothing that runs once per RPC
// allocates, percent-decoding and what the Append functions grow excepted.
//
// Where a comment says PROTOCOL-HTTP2, PROTOCOL-WEB or the status mapping, it
// means the documents of those names in the gRPC specification.
package wire
