package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sluice/gateway/observe"
	"sluice/gateway/wire"
)

const (
	// tunnelLinger is how long one direction of a tunnel may go on after the other has
	// ended: a WebSocket's last words.
	tunnelLinger = 10 * time.Second
	// tunnelBuffer is what each direction of a tunnel holds, in bytes.
	tunnelBuffer = 16 << 10
)

// tunnels counts the connections that have become WebSockets.
type tunnels struct {
	open    atomic.Int64
	in, out atomic.Int64 // bytes from clients, and to them
}

func (t *tunnels) register(m *observe.Metrics) {
	m.GaugeFunc("sluice_tunnel_open", "WebSockets that are passed through now.", nil, func() float64 { return float64(t.open.Load()) })
	m.CounterVecFunc("sluice_tunnel_bytes_total", "Bytes of WebSockets that are passed through.", []string{"direction"}, func(emit observe.Emit) {
		emit(float64(t.in.Load()), "in")
		emit(float64(t.out.Load()), "out")
	})
}

// switchProtocols passes a WebSocket through once the backend has agreed to it.
func (p *passage) switchProtocols(ctx context.Context, res *http.Response) {
	back, writable := res.Body.(io.ReadWriteCloser)
	if !p.upgrade || !writable || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		p.fail(backendInvalid, "the backend switched to a protocol that nobody had asked for")
		return
	}
	nc, buffered, err := p.control.Hijack()
	if err != nil {
		p.fail(unsupported, "this connection cannot become a WebSocket")
		return
	}
	defer nc.Close()
	head := p.switchingHead(res)
	nc.SetDeadline(time.Time{})
	nc.SetWriteDeadline(time.Now().Add(p.g.engine.Limits().StreamStall))
	if _, err := nc.Write(head); err != nil {
		return // cancelled
	}
	nc.SetWriteDeadline(time.Time{})
	p.outcome, p.code = served, wire.OK
	t := &tunnel{counts: &p.g.tunnels, client: nc, backend: back}
	if !t.run(ctx, buffered.Reader, p.g.engine.Limits().Idle) {
		if o, ours := p.closing(); ours {
			p.note(o)
		}
	}
}

// switchingHead is the response by which the client's connection becomes a WebSocket.
func (p *passage) switchingHead(res *http.Response) []byte {
	dropHopFields(res.Header)
	p.target.modify.responseHeader(res.Header)
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 101 %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", http.StatusText(http.StatusSwitchingProtocols))
	res.Header.WriteSubset(&b, map[string]bool{"Connection": true, "Upgrade": true, "Content-Length": true})
	b.WriteString("\r\n")
	return []byte(b.String())
}

// tunnel is two connections whose bytes are passed through.
type tunnel struct {
	counts  *tunnels
	client  net.Conn
	backend io.ReadWriteCloser
	moved   atomic.Int64 // when bytes were last moved, in nanoseconds
}

// run returns when both directions have ended, and closes both connections. It
// reports whether they ended by themselves: not by ctx, nor since nothing moved for
// as long as idle.
func (t *tunnel) run(ctx context.Context, early *bufio.Reader, idle time.Duration) (byThemselves bool) {
	t.counts.open.Add(1)
	defer t.counts.open.Add(-1)
	t.moved.Store(time.Now().UnixNano())
	ended := make(chan struct{}, 2)
	pipe := func(dst io.Writer, src io.Reader, count *atomic.Int64) {
		t.pass(dst, src, count)
		half, ok := dst.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil {
			t.close()
		}
		ended <- struct{}{}
	}
	// What the client sent before it had the answer waits in the reader.
	first := io.LimitReader(early, int64(early.Buffered()))
	go pipe(t.backend, io.MultiReader(first, t.client), &t.counts.in)
	go pipe(t.client, t.backend, &t.counts.out)
	byThemselves = t.wait(ctx, ended, idle)
	t.close()
	return byThemselves
}

// wait returns when both pipes have ended.
func (t *tunnel) wait(ctx context.Context, ended <-chan struct{}, idle time.Duration) (byThemselves bool) {
	byThemselves = true
	done := ctx.Done()
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for left := 2; left > 0; {
		select {
		case <-ended:
			left--
			idle = min(idle, tunnelLinger)
			timer.Reset(idle)
		case <-done:
			done, byThemselves = nil, false
			t.close()
		case <-timer.C:
			rest := idle - time.Since(time.Unix(0, t.moved.Load()))
			if rest <= 0 {
				byThemselves = byThemselves && left == 1
				t.close()
				rest = idle
			}
			timer.Reset(rest)
		}
	}
	return byThemselves
}

func (t *tunnel) close() {
	t.client.Close()
	t.backend.Close()
}

// pass copies until either side fails, or src ends.
func (t *tunnel) pass(dst io.Writer, src io.Reader, count *atomic.Int64) {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
			count.Add(int64(n))
			t.moved.Store(time.Now().UnixNano())
		}
		if err != nil {
			return
		}
	}
}
