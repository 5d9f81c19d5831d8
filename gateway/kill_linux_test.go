package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// mortal is a backend that can be killed, with a relay in front that reads along:
// it knows the nonce of every RPC whose HEADERS were written to a connection.
type mortal struct {
	t       testing.TB
	addr    string
	backend string // where the grpc-go server is

	mu      sync.Mutex // guards the fields below
	l       net.Listener
	conns   map[*witness]struct{}
	nonces  map[string]int  // how often each came
	doomed  map[string]bool // those on connections that were killed
	running sync.WaitGroup
}

func startMortal(t testing.TB, name string) *mortal {
	t.Helper()
	b := startBackend(t, name)
	m := &mortal{t: t, backend: b.addr, conns: make(map[*witness]struct{}), nonces: make(map[string]int), doomed: make(map[string]bool)}
	m.live(t, "127.0.0.1:0")
	t.Cleanup(func() {
		m.mu.Lock()
		m.l.Close()
		for w := range m.conns {
			w.near.Close()
			w.far.Close()
		}
		m.mu.Unlock()
		m.running.Wait()
	})
	return m
}

// live listens, for the first time or again.
func (m *mortal) live(t testing.TB, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.l, m.addr = l, l.Addr().String()
	m.mu.Unlock()
	m.running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", m.backend)
			if err != nil {
				nc.Close()
				continue
			}
			w := &witness{m: m, near: nc.(*net.TCPConn), far: far, dec: hpack.NewDecoder(4096, nil), preface: len(http2.ClientPreface), read: make(chan struct{})}
			m.mu.Lock()
			m.conns[w] = struct{}{}
			m.mu.Unlock()
			m.running.Go(w.forward)
			m.running.Go(func() {
				io.Copy(w.near, w.far)
				w.near.CloseWrite()
			})
		}
	})
}

// kill ends the backend as kill -9 does: connections are reset, with what is unread
// in them. The gateway stands still meanwhile, so that the account of what it has
// written is complete.
func (m *mortal) kill(gateway *os.Process) {
	thaw := freeze(m.t, gateway)
	defer thaw()
	m.mu.Lock()
	m.l.Close()
	conns := m.conns
	m.conns = make(map[*witness]struct{})
	m.mu.Unlock()
	for w := range conns {
		w.die()
	}
}

// freeze has a process stand still until the returned function is called.
func freeze(t testing.TB, p *os.Process) (thaw func()) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "the process to stand still", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		return err == nil && strings.HasPrefix(string(text[bytes.LastIndexByte(text, ')'):]), ") T ")
	})
	return func() { p.Signal(syscall.SIGCONT) }
}

// witness forwards one connection and reads along.
type witness struct {
	m    *mortal
	near *net.TCPConn // to the gateway
	far  net.Conn
	read chan struct{} // closed when forward reads no more

	// Owned by forward, then by die.
	preface int // bytes of it that are still to come
	rest    []byte
	dec     *hpack.Decoder
	nonces  []string
}

func (w *witness) forward() {
	defer close(w.read)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.near.Read(buf)
		w.note(buf[:n])
		if n > 0 {
			w.far.Write(buf[:n])
		}
		if err != nil {
			if !os.IsTimeout(err) {
				w.far.Close()
			}
			return
		}
	}
}

// die reads what the gateway has written and nobody has read, and resets the
// connection.
func (w *witness) die() {
	w.near.SetReadDeadline(time.Now())
	<-w.read
	rc, err := w.near.SyscallConn()
	if err != nil {
		w.m.t.Error(err)
		return
	}
	buf := make([]byte, 64<<10)
	for more := true; more; {
		rc.Control(func(fd uintptr) {
			n, err := unix.Read(int(fd), buf)
			if more = n > 0 && err == nil; more {
				w.note(buf[:n])
			}
		})
	}
	w.m.mu.Lock()
	for _, n := range w.nonces {
		w.m.doomed[n] = true
	}
	w.m.mu.Unlock()
	w.near.SetLinger(0)
	w.near.Close()
	w.far.Close()
}

// note parses what the gateway has written.
func (w *witness) note(p []byte) {
	skip := min(w.preface, len(p))
	w.preface -= skip
	w.rest = append(w.rest, p[skip:]...)
	for len(w.rest) >= 9 {
		n := 9 + int(binary.BigEndian.Uint32(w.rest)>>8)
		if len(w.rest) < n {
			return
		}
		if http2.FrameType(w.rest[3]) == http2.FrameHeaders {
			fields, err := w.dec.DecodeFull(w.rest[9:n])
			if err != nil {
				w.m.t.Errorf("the gateway's HEADERS: %v", err)
			}
			for _, f := range fields {
				if f.Name == "x-nonce" {
					w.nonces = append(w.nonces, f.Value)
					w.m.mu.Lock()
					w.m.nonces[f.Value]++
					w.m.mu.Unlock()
				}
			}
		}
		w.rest = w.rest[n:]
	}
}

// TestGatewayWaitsForAFrozenBackend no longer than its callers do, and uses it as soon
// as it thaws.
func TestGatewayWaitsForAFrozenBackend(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	b := startProcess(t, "backend", order{})
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	id := uint32(1)
	ask := func(timeout string) (e event, took time.Duration) {
		start := time.Now()
		client.request(id, "/shop.Cart/Echo", "grpc-timeout", timeout)
		client.data(id, message([]byte("hello")), true)
		this := id
		id += 2
		e = client.await("end", func(e event) bool { return e.id == this && e.end })
		return e, e.at.Sub(start)
	}
	if e, _ := ask("20S"); e.get("grpc-status") != "0" {
		t.Fatalf("before: %v", e)
	}
	thaw := freeze(t, b.cmd.Process)
	defer thaw()
	var late []time.Duration
	for range 7 {
		e, took := ask("100m")
		if e.get("grpc-status") != "4" || took < 100*time.Millisecond {
			t.Errorf("while it is frozen: %v after %v, want DEADLINE_EXCEEDED after 100 ms", e, took)
		}
		late = append(late, took-100*time.Millisecond)
	}
	slices.Sort(late)
	if median := late[len(late)/2]; median > 50*time.Millisecond {
		t.Errorf("the median of %d deadlines was %v late, want 50 ms at most", len(late), median)
	}
	thaw()
	if e, took := ask("20S"); e.get("grpc-status") != "0" || took > 5*time.Second {
		t.Errorf("after it has thawed: %v after %v", e, took)
	}
}

// TestGatewayUnderKills kills, restarts and adds backends under load. Only RPCs
// whose HEADERS had been written to a killed backend's connection may fail, and
// none is sent twice.
func TestGatewayUnderKills(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var backends []*mortal
	for i := range 4 {
		backends = append(backends, startMortal(t, fmt.Sprint(i)))
	}
	addrs := func(n int) (list []string) {
		for _, m := range backends[:n] {
			list = append(list, m.addr)
		}
		return list
	}
	resources := func(n int) string {
		return backendAt("a", addrs(n)...) + "\n---\n" + routeTo("a", "a")
	}
	p := startProcess(t, "gateway", order{Apply: resources(3)})

	var made, failed, wrong atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	var why sync.Map                    // messages
	fails := make(chan string, 100_000) // nonces
	for range 4 {
		cc := dial(t, p.addr, grpc.WithDisableRetry())
		for range 6 {
			wg.Go(func() {
				for !stop.Load() {
					nonce := fmt.Sprint("n", made.Add(1))
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					ctx = metadata.AppendToOutgoingContext(ctx, "x-nonce", nonce)
					_, err := invoke(ctx, cc, "/shop.Cart/Who", nil)
					cancel()
					if err == nil {
						continue
					}
					failed.Add(1)
					fails <- nonce
					why.Store(status.Convert(err).Message(), nonce)
					if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.HasPrefix(s.Message(), "sluice: ") {
						if wrong.Add(1) < 5 {
							t.Errorf("RPC %s failed by %v", nonce, err)
						}
					}
				}
			})
		}
	}
	const kills = 30
	random := rand.New(rand.NewPCG(1, 2))
	for i := range kills {
		<-time.After(time.Duration(20+random.IntN(60)) * time.Millisecond)
		m := backends[random.IntN(3)]
		m.kill(p.cmd.Process)
		<-time.After(time.Duration(random.IntN(60)) * time.Millisecond)
		m.live(t, m.addr)
		if i == kills/2 {
			p.ask(order{Apply: resources(4)}) // one more
		}
	}
	<-time.After(200 * time.Millisecond)
	stop.Store(true)
	wg.Wait()
	close(fails)

	written, others := 0, 0
	for nonce := range fails {
		doomed := false
		for _, m := range backends {
			m.mu.Lock()
			doomed = doomed || m.doomed[nonce]
			m.mu.Unlock()
		}
		if doomed {
			written++
			continue
		}
		if others++; others <= 5 {
			t.Errorf("RPC %s failed and was never written to a connection that was killed", nonce)
		}
	}
	if others > 0 {
		why.Range(func(message, nonce any) bool {
			t.Logf("%v: %v", nonce, message)
			return true
		})
	}
	seen := make(map[string]int)
	for _, m := range backends {
		for nonce, n := range m.nonces {
			seen[nonce] += n
		}
	}
	for nonce, n := range seen {
		if n > 1 {
			t.Errorf("RPC %s was written to %d connections", nonce, n)
		}
	}
	if len(backends[3].nonces) == 0 {
		t.Error("the backend that was added got nothing")
	}
	t.Logf("%d RPCs, %d kills: %d failed, %d of them written to a connection that was killed; %v moved",
		made.Load(), kills, failed.Load(), written, p.metric("sluice_rpc_moved_total"))
}
