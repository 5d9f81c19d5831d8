package wire

// Status is how an RPC ended, as an error: what the caller is told in its own
// protocol. A nil *Status is OK.
type Status struct {
	Code    Code   // may be one that gRPC does not define
	Message string // decoded
	// Details is a google.rpc.Status on the wire, of grpc-status-details-bin; nil when
	// there is none.
	Details []byte
	// HTTP is the HTTP status that says it better than the code's own, 0 for none:
	// 404 for a path that leads nowhere, 413, 415. Only callers of HTTP see it.
	HTTP int
	// Gateway tells that the gateway made it. Message then names the gateway.
	Gateway bool
}

// Error implements error.
func (s *Status) Error() string { return s.Code.String() + ": " + s.Message }

// HTTPStatus is what a caller of plain HTTP gets for it.
func (s *Status) HTTPStatus() int {
	if s == nil {
		return HTTPStatus(OK)
	}
	if s.HTTP != 0 {
		return s.HTTP
	}
	return HTTPStatus(s.Code)
}
