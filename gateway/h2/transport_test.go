package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestTransportCarriesBothWays(t *testing.T) {
	for _, kind := range transportKinds {
		for _, narrow := range []bool{false, true} {
			name, total := kind.name, 8<<20
			if narrow {
				name, total = name+" narrow", 1<<20
			}
			t.Run(name, func(t *testing.T) {
				client, server := transportEnds(t, kind.tls, kind.pipe, narrow)
				errs := make(chan error, 4)
				for _, end := range []*Transport{client, server} {
					go func() { errs <- transportSend(end, total) }()
					go func() { errs <- transportReceive(end, total, func() {}) }()
				}
				for range 4 {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// The poller forgets, when a wait begins, what it was told before. A writer that
// begins to wait after all the room was made does not wait for ever.
func TestTransportWriterIsNotStuckWhenRoomWasMadeBefore(t *testing.T) {
	client, server := transportEnds(t, false, false, true)
	for blocked := false; !blocked; {
		var err error
		if _, blocked, err = client.tryWrite(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	server.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	io.Copy(io.Discard, server.nc)
	client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if err := client.waitWrite(); err != nil {
		t.Errorf("the peer has read everything, and waiting to write ends by %v", err)
	}
}

// A writer that blocks is woken whatever the moment at which the reader makes
// room: between the attempt and the wait, too.
func TestTransportWriterIsWokenWheneverRoomIsMade(t *testing.T) {
	for _, kind := range transportKinds {
		t.Run(kind.name, func(t *testing.T) {
			client, server := transportEnds(t, kind.tls, kind.pipe, true)
			const total = 2 << 20
			sent := make(chan error, 1)
			go func() { sent <- transportSend(client, total) }()
			turn := 0
			err := transportReceive(server, total, func() {
				if turn++; turn%7 == 0 {
					time.Sleep(time.Duration(turn%5) * 20 * time.Microsecond)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-sent:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("everything was read, and the writer still waits")
			}
		})
	}
}

// A peer that does not read stops tryWrite, and never its caller.
func TestTransportTryWriteNeverBlocks(t *testing.T) {
	for _, kind := range transportKinds {
		t.Run(kind.name, func(t *testing.T) {
			client, server := transportEnds(t, kind.tls, kind.pipe, true)
			p := bytes.Repeat([]byte("sluice"), 1<<20)
			taken, blocked := 0, false
			for !blocked {
				n, b, err := client.tryWrite(p[taken:])
				if err != nil {
					t.Fatal(err)
				}
				taken, blocked = taken+n, b
			}
			if taken == len(p) {
				t.Fatalf("%d bytes were taken, and nobody reads", taken)
			}
			if n, blocked, err := client.tryWrite(p[taken:]); n != 0 && kind.tls || !blocked || err != nil {
				t.Fatalf("another try took %d bytes, blocked %t, %v; want 0, true, nil", n, blocked, err)
			}

			got := make(chan []byte, 1)
			go func() {
				all := make([]byte, taken)
				io.ReadFull(server, all)
				got <- all
			}()
			if err := client.waitWrite(); err != nil {
				t.Fatal(err)
			}
			if n, _, err := client.tryWrite(p[taken:]); n == 0 || err != nil {
				t.Fatalf("after the wait %d bytes were taken, %v; want some", n, err)
			}
			go client.waitWrite()
			if all := <-got; !bytes.Equal(all, p[:taken]) {
				t.Error("what arrived is not what was taken")
			}
			client.Close()
		})
	}
}

func TestTransportCloseEndsWhatWaits(t *testing.T) {
	for _, kind := range transportKinds {
		t.Run(kind.name, func(t *testing.T) {
			client, _ := transportEnds(t, kind.tls, kind.pipe, true)
			ended := make(chan error, 2)
			go func() {
				var b readBuffer
				ended <- transportRead(client, &b, func() error { return nil })
			}()
			go func() { ended <- transportSend(client, 64<<20) }()
			time.Sleep(time.Millisecond) // either order is to end well
			var closed sync.WaitGroup
			for range 2 {
				closed.Go(func() { client.Close() })
			}
			closed.Wait()
			for range 2 {
				if err := <-ended; err == nil {
					t.Error("ended without an error")
				}
			}
		})
	}
}

// A reader that always finds something to read ends all the same.
func TestTransportCloseEndsAReaderThatNeverWaits(t *testing.T) {
	for _, kind := range transportKinds[:2] {
		t.Run(kind.name, func(t *testing.T) {
			client, server := transportEnds(t, kind.tls, false, false)
			go transportSend(client, 1<<40)
			defer client.Close()
			ended := make(chan error, 1)
			var reads atomic.Int64
			go func() {
				var b readBuffer
				defer b.release()
				ended <- transportRead(server, &b, func() error {
					b.consume(len(b.bytes()))
					reads.Add(1)
					return nil
				})
			}()
			transportAwait(t, "reading", func() bool { return reads.Load() > 100 })
			server.Close()
			select {
			case err := <-ended:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("ended by %v; want %v", err, net.ErrClosed)
				}
			case <-time.After(5 * time.Second):
				t.Error("the reader goes on")
			}
		})
	}
}

func TestTransportHoldsNoReadBufferWhileItWaits(t *testing.T) {
	tests := []struct {
		name string
		rest int
		want int // the memory that the reader may keep for the remainder
	}{
		{"nothing", 0, 0},
		{"one byte", 1, readRestTiny},
		{"the largest tiny remainder", readRestTiny, readRestTiny},
		{"a frame header and some", 300, readRestSmall},
		{"a few KiB", 3000, readRestMedium},
		{"a whole frame but for its last byte", 16<<10 + 8, readRestLarge},
	}
	for _, kind := range transportKinds[:2] {
		for _, test := range tests {
			t.Run(kind.name+" "+test.name, func(t *testing.T) {
				client, server := transportEnds(t, kind.tls, false, false)
				testHoldsNoReadBuffer(t, client, server, test.rest, test.want)
			})
		}
	}
}

func testHoldsNoReadBuffer(t *testing.T, client, server *Transport, rest, want int) {
	before := readBuffersHeld.Load()
	var b readBuffer
	defer b.release()
	sent := bytes.Repeat([]byte("r"), rest+1)
	if err := transportWriteAll(client, sent); err != nil {
		t.Fatal(err)
	}
	arrived, ended := make(chan bool, 1), make(chan error, 1)
	go func() {
		ended <- transportRead(server, &b, func() error {
			if len(b.bytes()) == len(sent) {
				b.consume(1)
				arrived <- true
			}
			return nil
		})
	}()
	<-arrived
	transportAwait(t, "giving the buffer back", func() bool { return readBuffersHeld.Load() == before })

	server.SetReadDeadline(time.Now())
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("waiting ended with %v; want the deadline", err)
	}
	if len(b.buf) != want {
		t.Errorf("a remainder of %d bytes was kept in %d; want %d", rest, len(b.buf), want)
	}
	server.SetReadDeadline(time.Time{})
	if err := transportWriteAll(client, []byte("!")); err != nil {
		t.Fatal(err)
	}
	if err := server.fill(&b); err != nil {
		t.Fatal(err)
	}
	if want := string(sent[1:]) + "!"; string(b.bytes()) != want {
		t.Errorf("after the wait %d bytes are there, or not the right ones; want %d", len(b.bytes()), len(want))
	}
}

func TestTransportFillRefusesWhenNothingWasConsumed(t *testing.T) {
	client, server := transportEnds(t, false, false, false)
	go transportWriteAll(client, make([]byte, 2*readBufferSize))
	var b readBuffer
	defer b.release()
	for len(b.bytes()) < readBufferSize {
		if err := server.fill(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.fill(&b); !errors.Is(err, errTransportFull) {
		t.Errorf("filling a full buffer: %v; want %v", err, errTransportFull)
	}
}

func TestTransportDeliversUnreadBytesFirst(t *testing.T) {
	const text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and what follows"
	for split := range len(text) {
		client, server := net.Pipe()
		go client.Write([]byte(text[split:]))
		transport := NewTransport(server, []byte(text[:split]))
		var b readBuffer
		for len(b.bytes()) < len(text) {
			if err := transport.fill(&b); err != nil {
				t.Fatal(err)
			}
		}
		if string(b.bytes()) != text {
			t.Errorf("with %d bytes unread: %q", split, b.bytes())
		}
		b.release()
		client.Close()
	}
}

func TestTransportOpensTLSFromUnreadBytes(t *testing.T) {
	serverConfig, clientConfig := transportConfigs(t)
	for _, unread := range []int{1, 3, 5, 40} {
		a, b := transportSockets(t, false)
		client := NewClientTLS(a, clientConfig)
		hello := make(chan *Transport, 1)
		go func() {
			p := make([]byte, unread)
			io.ReadFull(b, p)
			server := NewServerTLS(b, p, serverConfig)
			server.Handshake(t.Context())
			hello <- server
		}()
		if err := client.Handshake(t.Context()); err != nil {
			t.Fatal(err)
		}
		server := <-hello
		if server.TLS() == nil || server.TLS().NegotiatedProtocol != "h2" {
			t.Errorf("with %d bytes unread: state %+v; want h2 agreed", unread, server.TLS())
		}
	}
}

func TestTransportHandshakeEndsWithItsContext(t *testing.T) {
	serverConfig, _ := transportConfigs(t)
	_, silent := transportSockets(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	server := NewServerTLS(silent, []byte{22, 3, 1}, serverConfig)
	if err := server.Handshake(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handshake with a silent peer: %v; want the deadline", err)
	}
	if server.TLS() != nil {
		t.Error("a handshake that failed has left a state")
	}
}

// The end of the stream is seen when it comes together with the last bytes, and
// when it comes alone.
func TestTransportSeesTheEnd(t *testing.T) {
	tests := []struct {
		name   string
		finish func(t *testing.T, client *Transport)
		want   error
	}{
		{"half close", func(t *testing.T, client *Transport) { client.closeWrite() }, io.EOF},
		{"close", func(t *testing.T, client *Transport) { client.Close() }, io.EOF},
		{"reset", func(t *testing.T, client *Transport) {
			client.nc.(*net.TCPConn).SetLinger(0)
			client.nc.Close()
		}, syscall.ECONNRESET},
	}
	for _, kind := range transportKinds[:2] {
		for _, test := range tests {
			for _, together := range []bool{true, false} {
				name := kind.name + " " + test.name
				if together {
					name += " with data"
				}
				t.Run(name, func(t *testing.T) {
					client, server := transportEnds(t, kind.tls, false, false)
					finish := func() { test.finish(t, client) }
					testSeesTheEnd(t, client, server, finish, together, test.want)
				})
			}
		}
	}
}

func testSeesTheEnd(t *testing.T, client, server *Transport, finish func(), together bool, want error) {
	const words = "last words"
	if err := transportWriteAll(client, []byte(words)); err != nil {
		t.Fatal(err)
	}
	if together {
		finish()
		time.Sleep(time.Millisecond) // the poller has been told of both, and will not be again
	}
	var b readBuffer
	defer b.release()
	arrived, ended := make(chan bool, 1), make(chan error, 1)
	go func() {
		ended <- transportRead(server, &b, func() error {
			if string(b.bytes()) == words {
				arrived <- true
			}
			return nil
		})
	}()
	if !together {
		<-arrived
		finish()
	}
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("the end is %v; want %v", err, want)
		}
		if string(b.bytes()) != words && want == io.EOF {
			t.Errorf("%q was left; want %q", b.bytes(), words)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the end was not seen")
	}
}

// A half close that the peer's slowness holds up comes after all that was
// written before.
func TestTransportCloseWriteComesLast(t *testing.T) {
	for _, kind := range transportKinds[:2] {
		t.Run(kind.name, func(t *testing.T) {
			client, server := transportEnds(t, kind.tls, false, true)
			const total = 1 << 20
			received := make(chan error, 1)
			sent := make(chan error, 1)
			go func() {
				err := transportSend(client, total)
				if err == nil {
					err = client.closeWrite()
				}
				if err == nil {
					err = client.waitWrite()
				}
				sent <- err
			}()
			go func() {
				if err := transportReceive(server, total, func() {}); err != nil {
					received <- err
					return
				}
				var b readBuffer
				received <- server.fill(&b)
			}()
			if err := <-sent; err != nil {
				t.Error(err)
			}
			if err := <-received; !errors.Is(err, io.EOF) {
				t.Errorf("after everything: %v; want the end", err)
			}
		})
	}
}

func TestTransportInMemoryHasNoUserTimeout(t *testing.T) {
	piped, _ := transportEnds(t, false, true, false)
	if err := piped.setUserTimeout(15 * time.Second); err != nil {
		t.Errorf("where there is nothing to set: %v", err)
	}
}

// Key updates of a peer that behaves are answered, however they are cut.
func TestTransportAnswersKeyUpdates(t *testing.T) {
	serverConfig, clientConfig := transportConfigs(t)
	for _, cut := range []int{5, 3, 1} {
		a, b := transportSockets(t, false)
		server := NewServerTLS(b, nil, serverConfig)
		u := newKeyUpdater(t, a, server, clientConfig)
		received := make(chan error, 1)
		var buf readBuffer
		go func() {
			for len(buf.bytes()) < len("before after") {
				if err := server.fill(&buf); err != nil {
					received <- err
					return
				}
			}
			received <- nil
		}()
		a.Write(u.data("before "))
		for _, record := range u.update(t, cut) {
			a.Write(record)
			time.Sleep(time.Millisecond) // the reader waits between the parts of a message
		}
		a.Write(u.data("after"))
		if err := <-received; err != nil || string(buf.bytes()) != "before after" {
			t.Errorf("cut at %d: %q, %v", cut, buf.bytes(), err)
		}
		a.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
			t.Fatalf("cut at %d: reading the answer: %v", cut, err)
		}
		buf.release()
	}
}

// A flood of key updates ends the connection: bare ones by crypto/tls, those
// that hide among data by us, whether the answers are read or not.
func TestTransportEndsAFloodOfKeyUpdates(t *testing.T) {
	serverConfig, clientConfig := transportConfigs(t)
	tests := []struct {
		name   string
		hidden bool
		read   bool
	}{
		{"bare", false, false},
		{"among data", true, false},
		{"among data, answers read", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := transportSockets(t, true)
			server := NewServerTLS(b, nil, serverConfig)
			u := newKeyUpdater(t, a, server, clientConfig)
			if test.read {
				go io.Copy(io.Discard, a)
			}
			ended := make(chan error, 1)
			go func() {
				var buf readBuffer
				defer buf.release()
				for {
					if err := server.fill(&buf); err != nil {
						ended <- err
						return
					}
					buf.consume(len(buf.bytes()))
				}
			}()
			const flood = 100_000
			sent := 0
			for ; sent < flood; sent++ {
				p := u.update(t, 5)[0]
				if test.hidden {
					p = append(p, u.data("x")...)
				}
				a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				if _, err := a.Write(p); err != nil {
					break
				}
			}
			select {
			case err := <-ended:
				if test.hidden && !errors.Is(err, errTransportReplies) {
					t.Errorf("ended by %v; want %v", err, errTransportReplies)
				}
			case <-time.After(time.Second):
				t.Errorf("%d updates did not end the connection", sent)
			}
			if held := len(server.out.pending); held > transportPendingSize {
				t.Errorf("%d bytes of answers wait; want at most %d", held, transportPendingSize)
			}
		})
	}
}

// transportListener hands out transports for net/http.
type transportListener struct {
	net.Listener
	wrap func(net.Conn) (*Transport, error)
}

func (l transportListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(nc)
}

func TestTransportServesHTTP1(t *testing.T) {
	serverConfig, clientConfig := transportConfigs(t)
	serverConfig.NextProtos, clientConfig.NextProtos = nil, nil
	tests := []struct {
		name string
		url  string
		wrap func(net.Conn) (*Transport, error)
	}{
		{"clear", "http://", func(nc net.Conn) (*Transport, error) { return NewTransport(nc, nil), nil }},
		{"tls", "https://", func(nc net.Conn) (*Transport, error) {
			t := NewServerTLS(nc, nil, serverConfig)
			return t, t.Handshake(context.Background())
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(w, r.Body)
			})}
			served := make(chan error, 1)
			go func() { served <- server.Serve(transportListener{l, test.wrap}) }()
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientConfig}}
			for _, size := range []int{0, 1, 3 << 20} {
				body := strings.Repeat("b", size)
				reply, err := client.Post(test.url+l.Addr().String(), "text/plain", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(reply.Body)
				if err != nil || string(got) != body {
					t.Errorf("%d bytes came back of %d, %v", len(got), size, err)
				}
				reply.Body.Close()
			}
			client.CloseIdleConnections()
			if err := server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
}

func TestTransportOfClearTextHasNoTLS(t *testing.T) {
	client, _ := transportEnds(t, false, false, false)
	if err := client.Handshake(t.Context()); err != nil {
		t.Error(err)
	}
	if client.TLS() != (*tls.ConnectionState)(nil) {
		t.Error("clear text has a TLS state")
	}
}
