package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"sluice/gateway/rest"
	"sluice/gateway/wire"
)

// serveGRPC answers a gRPC request of a handler: gRPC-Web that has been unwrapped, or
// native gRPC whose backend does not speak it. Messages pass as bytes where the
// backend is a gRPC one.
func (g *Gateway) serveGRPC(w http.ResponseWriter, r *http.Request) {
	o := rest.Opening{
		Method: r.URL.Path, Metadata: r.Header, Codec: codecOf(r.Header.Get("Content-Type")),
		Encoding: r.Header.Get("Grpc-Encoding"), AcceptEncoding: r.Header.Get("Grpc-Accept-Encoding"),
	}
	if list, has := r.Header["Grpc-Timeout"]; has {
		d, ok := wire.ParseTimeout(list[0])
		if !ok {
			g.count(&g.nowhere, badTimeout)
			g.answerGRPC(w, r, badTimeout.status())
			return
		}
		if d == 0 {
			g.count(&g.nowhere, deadline)
			g.answerGRPC(w, r, deadline.status())
			return
		}
		o.Timeout = d
	}
	opened, err := g.wayOf(r).Open(r, &o)
	if err != nil {
		g.answerGRPC(w, r, statusOfError(err))
		return
	}
	defer opened.Close()
	c, ok := opened.(*call)
	if !ok {
		if o.Timeout > 0 { // the body is read to its end first, and may be late
			defer time.AfterFunc(o.Timeout, func() { r.Body.Close() }).Stop()
		}
		g.serveMessages(w, r, opened)
		return
	}
	done := c.sendBody(r)
	defer done()
	c.answer(w, r)
}

// answerGRPC ends a request that has no call: a trailers-only response.
func (g *Gateway) answerGRPC(w http.ResponseWriter, r *http.Request, st *wire.Status) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	setStatus(w.Header(), "", st)
	w.WriteHeader(http.StatusOK)
}

// sendBody sends the body of a request. A short one, whose length is known, is read
// here and now; the function that it returns waits for the end of others.
func (c *call) sendBody(r *http.Request) (done func()) {
	if n := r.ContentLength; n >= 0 && n <= sendUnit {
		c.sendShort(r.Body, int(n))
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.copyBody(r.Body)
	}()
	return func() {
		c.Close()
		r.Body.Close()
		<-ended
	}
}

// sendShort sends a body of n bytes at once. What is wrong with it shows at its end.
func (c *call) sendShort(body io.Reader, n int) {
	buf := make([]byte, n+1)
	read, err := io.ReadFull(body, buf)
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF && read == n:
		c.write(buf[:read], true)
	default:
		c.abortBody(err)
	}
}

// abortBody ends an RPC whose request cannot be read to its end.
func (c *call) abortBody(err error) {
	var st *wire.Status
	switch {
	case errors.As(err, &st):
	case errors.Is(err, os.ErrDeadlineExceeded):
		st = &wire.Status{Code: wire.DeadlineExceeded, Message: "sluice: the request's body did not come in time", Gateway: true}
	default:
		st = &wire.Status{Code: wire.Canceled, Message: "sluice: the request ended before its time", Gateway: true}
	}
	c.Abort(st)
}

func (c *call) copyBody(body io.Reader) {
	buf := make([]byte, sendUnit)
	for {
		n, err := body.Read(buf)
		if n > 0 && c.write(buf[:n], false) != nil {
			return
		}
		switch err {
		case nil:
			continue
		case io.EOF:
			c.CloseSend()
		default:
			c.abortBody(err)
		}
		return
	}
}

// answer passes the backend's answer on.
func (c *call) answer(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w).Flush
	header, err := c.Header()
	copyHeader(w.Header(), header)
	contentType := r.Header.Get("Content-Type")
	w.Header().Set("Content-Type", contentType)
	if enc := c.Encoding(); enc != "" {
		w.Header().Set("Grpc-Encoding", enc)
	}
	c.mu.Lock()
	bare := !c.headed && c.over
	c.mu.Unlock()
	if bare { // trailers-only stays so
		copyHeader(w.Header(), c.Trailer())
		setStatus(w.Header(), "", statusOfError(err))
		w.WriteHeader(http.StatusOK)
		return
	}
	w.WriteHeader(http.StatusOK)
	for err == nil {
		var p []byte
		if p, err = c.chunk(); err == nil {
			if _, err = w.Write(p); err == nil && c.idle() {
				err = flush()
			}
			if err != nil {
				c.Abort(cancelled.status())
				return
			}
		}
	}
	for name, values := range c.Trailer() {
		w.Header()[http.TrailerPrefix+name] = values
	}
	setStatus(w.Header(), http.TrailerPrefix, statusOfError(err))
}

// serveMessages answers by a call that is not a stream of the backend's.
func (g *Gateway) serveMessages(w http.ResponseWriter, r *http.Request, c rest.Call) {
	status := g.relayMessages(w, r, c)
	prefix := http.TrailerPrefix
	if status == nil {
		status = &wire.Status{}
	}
	for name, values := range c.Trailer() {
		w.Header()[prefix+name] = values
	}
	setStatus(w.Header(), prefix, status)
}

func (g *Gateway) relayMessages(w http.ResponseWriter, r *http.Request, c rest.Call) *wire.Status {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	for {
		data, flags, err := readMessage(r.Body, c.Limits().MaxMessage)
		if err == io.EOF {
			err = c.CloseSend()
		} else if err == nil {
			if err = c.Send(rest.Message{Data: data, Compressed: flags&wire.FlagCompressed != 0}, false); err == nil {
				continue
			}
		}
		if st := statusOfError(err); err != nil && err != io.EOF && st != nil {
			return c.Abort(st)
		}
		break
	}
	header, err := c.Header()
	copyHeader(w.Header(), header)
	for err == nil {
		var m rest.Message
		if m, err = c.Receive(); err == nil {
			w.Write(append(wire.AppendPrefix(nil, wire.Prefix{Length: uint32(len(m.Data))}), m.Data...))
		}
	}
	if err == io.EOF {
		return nil
	}
	return statusOfError(err)
}

// readMessage reads one message of a request's body.
func readMessage(body io.Reader, limit int) (data []byte, flags byte, err error) {
	var head [wire.PrefixLen]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		if err != io.EOF {
			err = &wire.Status{Code: wire.InvalidArgument, Message: "sluice: the request ends in the middle of a message", Gateway: true}
		}
		return nil, 0, err
	}
	p, _ := wire.ParsePrefix(head[:])
	if int64(p.Length) > int64(limit) {
		return nil, 0, tooLong("the request's message", int64(p.Length), limit)
	}
	data, err = io.ReadAll(io.LimitReader(body, int64(p.Length)))
	if err != nil || len(data) < int(p.Length) {
		return nil, 0, &wire.Status{Code: wire.InvalidArgument, Message: "sluice: the request ends in the middle of a message", Gateway: true}
	}
	return data, p.Flags, nil
}

// statusOfError is the status that an error of a call is; nil of io.EOF and of none.
func statusOfError(err error) *wire.Status {
	var st *wire.Status
	switch {
	case err == nil || err == io.EOF:
		return nil
	case errors.As(err, &st):
		return st
	}
	return &wire.Status{Code: wire.Internal, Message: "sluice: " + err.Error(), Gateway: true}
}

// setStatus writes a status as gRPC has it in fields, under names with a prefix.
func setStatus(h http.Header, prefix string, st *wire.Status) {
	if st == nil {
		h.Set(prefix+"Grpc-Status", "0")
		return
	}
	h.Set(prefix+"Grpc-Status", strconv.FormatUint(uint64(st.Code), 10))
	if st.Message != "" {
		h.Set(prefix+"Grpc-Message", string(wire.AppendMessage(nil, st.Message)))
	}
	if st.Details != nil {
		h.Set(prefix+"Grpc-Status-Details-Bin", encodeBin(st.Details))
	}
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = values
	}
}

// codecOf is what stands behind the plus sign of a content type, without parameters.
func codecOf(contentType string) string {
	codec := subtype(contentType)
	for i := range codec {
		if codec[i] == ';' || codec[i] == ' ' {
			codec = codec[:i]
			break
		}
	}
	if codec == "" {
		return ""
	}
	return codec[1:]
}
