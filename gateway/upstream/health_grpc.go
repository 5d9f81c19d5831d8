package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gateway/h2"
	"sluice/gateway/wire"
)

// The methods of grpc.health.v1, and the statuses of its answers.
const (
	healthCheckPath = "/grpc.health.v1.Health/Check"
	healthWatchPath = "/grpc.health.v1.Health/Watch"

	serving        = 1
	notServing     = 2
	serviceUnknown = 3
)

// maxHealthMessage bounds an answer, in bytes: it is one number.
const maxHealthMessage = 1 << 10

// checkGRPC asks once, on the endpoint's own connection.
func (e *Endpoint) checkGRPC(ctx context.Context, service string) error {
	if e.http != nil {
		return errors.New("health check by gRPC: the backend speaks HTTP/1")
	}
	res, err := e.askHealth(ctx, healthCheckPath, service, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	status, err := readHealth(res.Body)
	if err != nil && err != io.EOF {
		return err
	}
	if err == nil {
		if _, more := readHealth(res.Body); more == nil {
			return errors.New("health check answered with more than one message")
		} else if more != io.EOF {
			return more
		}
	}
	if fault := healthStatus(res, service); fault != nil {
		return fault
	}
	if err == io.EOF {
		return errors.New("health check answered without a message")
	}
	return healthFault(status, service)
}

// askHealth sends the request, and returns the response whose header is gRPC's. opened
// is told of the connection.
func (e *Endpoint) askHealth(ctx context.Context, path, service string, opened func(*h2.Conn)) (*http.Response, error) {
	message := protowire.AppendTag(nil, 1, protowire.BytesType)
	message = protowire.AppendString(message, service)
	body := append(wire.AppendPrefix(nil, wire.Prefix{Length: uint32(len(message))}), message...)
	header := http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {healthAgent}}
	if _, bounded := ctx.Deadline(); bounded {
		header["Grpc-Timeout"] = []string{""} // what remains is written in its place
	}
	e.mu.Lock()
	scheme := "http"
	if e.settings.tls != nil {
		scheme = "https"
	}
	e.mu.Unlock()
	req := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: scheme, Path: path}, Host: e.id.address,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}).WithContext(ctx)
	open := func(ctx context.Context, s *h2.Stream, o *h2.Opening, b *h2.Batch) (func(), error) {
		o.Patient = true // whoever asks for health asks in this way, and not by PING
		release, err := e.openWhenUp(ctx, s, o, b)
		if err == nil && opened != nil {
			opened(s.Conn())
		}
		return release, err
	}
	res, err := (&h2.RoundTripper{Open: open}).RoundTrip(req)
	switch {
	case err != nil:
		return nil, undecided(err)
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("health check answered HTTP %d without gRPC", res.StatusCode)
	case !wire.IsGRPC(res.Header.Get("Content-Type")) && res.Header.Get("Grpc-Status") == "":
		err = fmt.Errorf("health check answered with content-type %.64q, which is not gRPC", res.Header.Get("Content-Type"))
	default:
		return res, nil
	}
	res.Body.Close()
	return nil, err
}

// readHealth reads one answer; io.EOF when there is none.
func readHealth(r io.Reader) (status uint64, err error) {
	var prefix [wire.PrefixLen]byte
	switch _, err := io.ReadFull(r, prefix[:]); {
	case err == io.ErrUnexpectedEOF:
		return 0, errors.New("health check answered with half a message")
	case err != nil:
		return 0, err
	}
	switch p, _ := wire.ParsePrefix(prefix[:]); {
	case p.Flags != 0:
		return 0, errors.New("health check answered with a compressed message, which was not asked for")
	case p.Length > maxHealthMessage:
		return 0, fmt.Errorf("health check answered with a message of %d bytes, limit %d", p.Length, maxHealthMessage)
	default:
		message := make([]byte, p.Length)
		if _, err := io.ReadFull(r, message); err == io.EOF || err == io.ErrUnexpectedEOF {
			return 0, errors.New("health check answered with half a message")
		} else if err != nil {
			return 0, err
		}
		return parseHealth(message)
	}
}

var errHealthMessage = errors.New("health check answered with what is no HealthCheckResponse")

// parseHealth reads the status of a HealthCheckResponse: field 1, the last one holds.
// What else there may be is of a later version.
func parseHealth(p []byte) (status uint64, err error) {
	for len(p) > 0 {
		number, kind, n := protowire.ConsumeTag(p)
		if n < 0 {
			return 0, errHealthMessage
		}
		p = p[n:]
		if number == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(p)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, p)
		}
		if n < 0 || number == 1 && kind != protowire.VarintType {
			return 0, errHealthMessage
		}
		p = p[n:]
	}
	return status, nil
}

// healthStatus is the fault that the response ends with, nil when it is OK. Its body has
// been read to the end.
func healthStatus(res *http.Response, service string) error {
	switch code, message := healthCode(res); {
	case code == noCode:
		return errors.New("health check answered without a grpc-status")
	case code == wire.OK:
		return nil
	case code == wire.NotFound:
		return fmt.Errorf("health check answered NOT_FOUND: the server does not know the service %q", service)
	case code == wire.Unimplemented:
		return errors.New("health check answered UNIMPLEMENTED: the server has no grpc.health.v1")
	default:
		return fmt.Errorf("health check answered %s: %.128q", code.Label(), wire.DecodeMessage(message))
	}
}

// noCode stands for a grpc-status that is not there, or is no number.
const noCode wire.Code = 1<<32 - 1

// healthCode is the grpc-status that the response ends with.
func healthCode(res *http.Response) (code wire.Code, message string) {
	end := res.Trailer
	if end.Get("Grpc-Status") == "" {
		end = res.Header
	}
	code, ok := wire.ParseStatus(end.Get("Grpc-Status"))
	if !ok {
		code = noCode
	}
	return code, end.Get("Grpc-Message")
}

// healthFault is what a status says against the endpoint, nil when it serves.
func healthFault(status uint64, service string) error {
	switch status {
	case serving:
		return nil
	case notServing:
		return errors.New("health check answered NOT_SERVING")
	case serviceUnknown:
		return fmt.Errorf("health check answered SERVICE_UNKNOWN: the server does not know the service %q", service)
	}
	return fmt.Errorf("health check answered status %d, want SERVING", status)
}

const (
	// watchAgain is how soon a server is asked to Watch again that does not know it, or
	// did not do it well.
	watchAgain = 5 * time.Minute
	// A server may tell of so many changes at once, and of one more each watchEach; one
	// that does more floods us, and is asked by Check alone.
	maxWatchBurst = 100
	watchEach     = 100 * time.Millisecond
)

// watch is told by an endpoint of its health as it changes.
type watch struct {
	checker *checker
	service string

	// Guarded by the endpoint's mu.
	open  bool
	after time.Time // when it may be tried
	conn  *h2.Conn  // that it is open on, and what ends it there
	end   context.CancelFunc
}

// begin reports whether a Watch is to be opened now, which is then on its way.
func (w *watch) begin(now time.Time) bool {
	e := w.checker.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.open || now.Before(w.after) || len(*e.live.Load()) == 0 {
		return false
	}
	w.open = true
	return true
}

// run has what the server tells hold at once, until its connection takes no more
// streams, or it does not do well.
func (w *watch) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := w.checker.e
	again := w.listen(ctx, func(c *h2.Conn) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !slices.Contains(*e.live.Load(), c) {
			cancel() // it has taken its leave meanwhile
		}
		if w.conn, w.end = c, cancel; e.health.checker == w.checker {
			e.health.watch = w
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	w.open = false
	if e.health.watch == w { // else that is of another, which has taken its place
		e.health.watch = nil
	}
	if !again {
		w.after = time.Now().Add(watchAgain)
	}
}

// listen reports whether the server may be asked again soon.
func (w *watch) listen(ctx context.Context, opened func(*h2.Conn)) (again bool) {
	res, err := w.checker.e.askHealth(ctx, healthWatchPath, w.service, opened)
	if err != nil {
		var lost *h2.StreamError
		return errors.As(err, &lost) || ctx.Err() != nil || unreached(err)
	}
	defer res.Body.Close()
	left, filled := maxWatchBurst, time.Now()
	for {
		status, err := readHealth(res.Body)
		if err == io.EOF {
			code, _ := healthCode(res)
			return code != wire.Unimplemented
		}
		if err != nil {
			var lost *h2.StreamError
			return errors.As(err, &lost) || ctx.Err() != nil
		}
		now := time.Now()
		if more := int(now.Sub(filled) / watchEach); more > 0 {
			left, filled = min(left+more, maxWatchBurst), now
		}
		if left--; left < 0 {
			return false
		}
		w.checker.found(healthFault(status, w.service), true)
	}
}

// unreached tells whether a request never left.
func unreached(err error) bool {
	for _, why := range []error{ErrConnecting, ErrDown, ErrFull, ErrRetired, ErrCrowded} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}
