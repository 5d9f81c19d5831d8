package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"sluice/store"
)

// checkTCP makes a connection, and closes it.
func (e *Endpoint) checkTCP(ctx context.Context) error {
	nc, err := e.connection(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	return nc.Close()
}

// maxHealthBody is how much of an answer is read so that its connection can be used
// again; its content is not looked at. Bytes.
const maxHealthBody = 4 << 10

// checkHTTP asks by the endpoint's own connections. One that takes one request on each,
// and has as many as it may have, is busy: that its check waited for one in vain says
// nothing of it.
func (e *Endpoint) checkHTTP(ctx context.Context, spec *store.HTTPCheck) error {
	u, err := url.Parse(spec.Path)
	if err != nil {
		return err
	}
	host := spec.Host
	if host == "" {
		host = e.id.address
	}
	req := &http.Request{
		Method: http.MethodGet, URL: u, Host: host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {healthAgent}},
	}
	var asked atomic.Bool // on a connection
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { asked.Store(true) }}
	res, err := e.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil && e.http != nil && !asked.Load() && int64(e.Active()) >= e.http.limit.Load() {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return undecided(err)
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, maxHealthBody)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("health check answered HTTP %d, want 200 to 299", res.StatusCode)
	}
	return nil
}

// healthAgent is who asks, for those who read access logs.
const healthAgent = "sluice-health-check"

// undecided tells of a check that found no room on any connection: those who are full
// of RPCs are not ill for it.
func undecided(err error) error {
	if errors.Is(err, ErrFull) || errors.Is(err, ErrCrowded) {
		return fmt.Errorf("%w: %w", errUndecided, err)
	}
	return err
}
