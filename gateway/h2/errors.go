package h2

import (
	"fmt"

	"golang.org/x/net/http2"
)

// connError ends the connection: the peer broke a rule that leaves no common
// state (RFC 9113 section 5.4.1), or went past a limit.
type connError struct {
	code   http2.ErrCode
	reason Reason
	detail string
}

func (e *connError) Error() string {
	return fmt.Sprintf("connection ended with %v (%v): %s", e.code, e.reason, e.detail)
}

func protocolError(format string, args ...any) *connError {
	return &connError{http2.ErrCodeProtocol, ReasonProtocol, fmt.Sprintf(format, args...)}
}

// excess is the error of a limit: a peer that floods is told to calm down.
func excess(r Reason, format string, args ...any) *connError {
	return &connError{http2.ErrCodeEnhanceYourCalm, r, fmt.Sprintf(format, args...)}
}

// Ending says how a stream ended without END_STREAM from its peer.
type Ending struct {
	How  How
	Code http2.ErrCode // of the RST_STREAM or GOAWAY that ended it
	// Unprocessed is true when the peer certainly never acted on the stream: it was
	// refused, lay above GOAWAY's last id, or never left (RFC 9113 section 8.7).
	Unprocessed bool
}

// How is the manner of an ending.
type How uint8

const (
	PeerReset      How = iota + 1 // the peer sent RST_STREAM
	PeerGoneAway                  // the stream lay above the last id of the peer's GOAWAY
	ConnectionLost                // the connection ended under the stream
	Violation                     // the peer broke a rule on this stream; we have reset it
	HeadersLarge                  // the peer's response header or trailer section was over our limit; we have reset it
	Stalled                       // nothing of what waits for the peer was taken for too long; we have reset it
	Overloaded                    // the largest stalled stream while memory for streams had run out; we have reset it
	DrainEnded                    // our own drain's grace was over
	AgeEnded                      // the client's connection was too old, and its grace over
	Evicted                       // the backend is not to go on with it: another one may
)

func (h How) String() string {
	return [...]string{"", "peer reset", "peer gone away", "connection lost", "violation", "headers large", "stalled", "overloaded", "drain ended", "age ended", "evicted"}[h]
}
