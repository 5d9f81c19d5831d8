// Package rest translates REST, JSON and Connect to gRPC and back.
//
// It knows methods by their descriptors and RPCs as calls that take and give
// messages; which backend answers is the business of package gateway, which
// implements what this package asks for in call.go.
package rest

import (
	"context"
	"net/http"
	"time"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Way leads the requests of one kind to backends: by the GRPCRoutes, or to the one
// backend that an HTTPRoute has chosen. Package gateway implements it; its methods
// are safe for use by several goroutines.
type Way interface {
	// Open finds rule and backend for an RPC and sends nothing yet. The error is a
	// *wire.Status. The call must be closed.
	Open(r *http.Request, o *Opening) (Call, error)
	// Table has the REST paths of the methods that are known now.
	Table(r *http.Request) *Table
	// Learn asks the backends that the request could reach, and that have not told yet,
	// for their descriptors. It returns nil when there is nothing new.
	Learn(r *http.Request) *Table
	// Method describes a method ("/shop.v1.Cart/Add") as the backend of that key has it,
	// asking the backend when need be. It is nil, with the reason, when nobody can tell.
	Method(ctx context.Context, backend, path string) (*schema.Method, error)
}

// Opening is an RPC that is to begin.
type Opening struct {
	Method string // "/shop.v1.Cart/Add"
	// Metadata is what the backend gets beside the gateway's own fields, in the form of
	// HTTP fields; -bin values are base64. It holds none of the fields of the caller's
	// protocol. Its grpc-timeout, if any, is ignored.
	Metadata http.Header
	// Timeout of the RPC from now; 0 means none.
	Timeout time.Duration
	// Codec is of the content type: "proto", or what a passed-through message has.
	Codec string
	// Encoding of compressed messages that are sent, and what the answer's may be;
	// empty means identity.
	Encoding, AcceptEncoding string
}

// Call is one RPC. One goroutine sends, one receives; Abort and Close may come from
// either. Every error is a *wire.Status, but io.EOF.
type Call interface {
	// Backend is the key of the backend that was chosen, "namespace/name".
	Backend() string
	// Limits hold for messages that are translated.
	Limits() Limits
	// Send sends a message, which is copied or gone when it returns; last says that it is
	// the last one. It waits while the backend does not take more. The RPC begins with
	// the first one, or with CloseSend.
	Send(m Message, last bool) error
	CloseSend() error
	// Header waits for the response's metadata, without the fields of the protocol. Of
	// an answer that has nothing but an end, it is empty: all is in Trailer.
	Header() (http.Header, error)
	// Encoding is the grpc-encoding of the response; known after Header.
	Encoding() string
	// Receive returns the next message, valid until the next call. It ends with io.EOF
	// when the status is OK, and else with the status.
	Receive() (Message, error)
	// Trailer is the metadata that came with the end; known after Receive's error.
	Trailer() http.Header
	// Abort ends the RPC for a reason that was found in translating: it is what metrics
	// and logs then say of it. It returns st.
	Abort(st *wire.Status) *wire.Status
	// Close gives up what has not ended. It must be called.
	Close()
}

// Message is one message of an RPC, without its prefix.
type Message struct {
	Data       []byte
	Compressed bool // with the encoding of its side
}

// Limits bound the translation of one RPC.
type Limits struct {
	// MaxMessage is the most that a message may have, decompressed, in bytes.
	MaxMessage int
	// IgnoreUnknownFields and IgnoreUnknownParameters let pass, and drop, what the
	// method's messages do not have.
	IgnoreUnknownFields, IgnoreUnknownParameters bool
}

// DefaultMaxMessage is what holds when no policy says otherwise: 4 MiB, as gRPC's own
// servers have it.
const DefaultMaxMessage = 4 << 20
