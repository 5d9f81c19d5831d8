package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway/wire"
)

func echoHandler() *Handler { return NewHandler(http.HandlerFunc(echo), Options{}) }

func TestHandlerTranslatesBothForms(t *testing.T) {
	body := message(0, "one") + message(0, "") + message(1, "three")
	text := string(AppendText(nil, []byte(body)))
	for _, tc := range []struct{ name, contentType, accept, body, want string }{
		{"binary", "application/grpc-web+proto", "", body, "application/grpc-web+proto"},
		{"binary, no codec", "application/grpc-web", "*/*", body, "application/grpc-web"},
		{"binary, another codec", "application/grpc-web+json; charset=utf-8", "", body, "application/grpc-web+json"},
		{"binary in capitals", "Application/gRPC-Web+proto", "", body, "application/grpc-web+proto"},
		{"text", "application/grpc-web-text", "application/grpc-web-text", text, "application/grpc-web-text"},
		{"text that accepts anything", "application/grpc-web-text+proto", "*/*", text, "application/grpc-web-text+proto"},
		{"text that wants binary", "application/grpc-web-text+proto", "application/grpc-web+proto", text, "application/grpc-web+proto"},
		{"binary that wants text", "application/grpc-web+proto", "application/grpc-web-text", body, "application/grpc-web-text+proto"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := call(t, echoHandler(), tc.contentType, tc.body, "Accept", tc.accept)
			if a.http != 200 || a.header.Get("Content-Type") != tc.want || !slices.Equal(a.messages, []string{"one", "", "three"}) {
				t.Errorf("status %d, %q, messages %q", a.http, a.header, a.messages)
			}
			if a.status() != "0" || !slices.Equal(a.trailers["X-End"], []string{"1", "2"}) || a.header.Get("X-Served-By") != "cart-v1" {
				t.Errorf("trailers %q, header %q", a.trailers, a.header)
			}
		})
	}
}

// The request's pieces are encoded one by one, and so are the response's: whatever
// the cut, it is the same RPC.
func TestHandlerReadsTextThatIsPaddedInMidStream(t *testing.T) {
	body := message(0, "one") + message(0, "twenty-two")
	for cut := range len(body) + 1 {
		text := string(AppendText(AppendText(nil, []byte(body[:cut])), []byte(body[cut:])))
		a := call(t, echoHandler(), "application/grpc-web-text+proto", text)
		if a.status() != "0" || !slices.Equal(a.messages, []string{"one", "twenty-two"}) {
			t.Fatalf("cut at %d: status %q, messages %q", cut, a.status(), a.messages)
		}
	}
}

func TestHandlerPassesLargeText(t *testing.T) {
	large := strings.Repeat("0123456789", 100_000)
	text := string(AppendText(nil, []byte(message(0, large)+message(0, large[1:]))))
	a := call(t, echoHandler(), "application/grpc-web-text", text)
	if a.status() != "0" || len(a.messages) != 2 || a.messages[0] != large || a.messages[1] != large[1:] {
		t.Errorf("status %q, %d messages", a.status(), len(a.messages))
	}
}

// A status without messages stands in the header, with an empty body, whichever way
// the backend's side says it.
func TestHandlerLeavesAStatusWithoutMessagesInTheHeader(t *testing.T) {
	for _, tc := range []struct {
		name     string
		upstream http.HandlerFunc
	}{
		{"nothing written", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Grpc-Status", "5")
		}},
		{"header written", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(200)
			w.Write(nil)
			w.(http.Flusher).Flush()
		}},
		{"as trailers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		}},
		{"with another HTTP status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Grpc-Status", "5")
			w.WriteHeader(http.StatusNotFound)
		}},
	} {
		for _, form := range []string{"application/grpc-web+proto", "application/grpc-web-text+proto"} {
			t.Run(tc.name+" "+form, func(t *testing.T) {
				a := call(t, NewHandler(tc.upstream, Options{}), form, "")
				if a.http != 200 || a.header.Get("Grpc-Status") != "5" || a.body != "" || a.header.Get("Content-Length") != "" {
					t.Errorf("status %d, header %q, body %q", a.http, a.header, a.body)
				}
				if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, strings.TrimSuffix(form, "+proto")) {
					t.Errorf("content-type %q", got)
				}
			})
		}
	}
}

func TestHandlerShowsUpstreamPlainGRPC(t *testing.T) {
	var seen *http.Request
	h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		echo(w, r)
	}), Options{})
	for _, tc := range []struct{ asked, want string }{{"", "identity"}, {"gzip", "gzip"}} {
		r := httptest.NewRequest(http.MethodPost, "/shop.v1.Cart/Add", strings.NewReader(message(0, "x")))
		r.Header.Set("Content-Type", "application/grpc-web-text+proto")
		r.Header.Set("Content-Length", "6")
		r.Header.Set("Grpc-Timeout", "1S")
		if tc.asked != "" {
			r.Header.Set("Grpc-Accept-Encoding", tc.asked)
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if seen.ProtoMajor != 2 || seen.Header.Get("Content-Type") != "application/grpc+proto" || seen.ContentLength != -1 || seen.Header.Get("Content-Length") != "" {
			t.Errorf("upstream saw HTTP/%d, %q, length %d", seen.ProtoMajor, seen.Header, seen.ContentLength)
		}
		if got := seen.Header.Get("Grpc-Accept-Encoding"); got != tc.want || seen.Header.Get("Grpc-Timeout") != "1S" {
			t.Errorf("upstream saw %q", seen.Header)
		}
		if r.ProtoMajor != 1 || r.Header.Get("Content-Type") != "application/grpc-web-text+proto" || r.Header.Get("Content-Length") != "6" {
			t.Errorf("the caller's request was changed: %q", r.Header)
		}
	}
}

func TestHandlerRefusesARequestThatIsNone(t *testing.T) {
	one := message(0, "one")
	text := func(s string) string { return string(AppendText(nil, []byte(s))) }
	for _, tc := range []struct {
		name, contentType, body string
		messages                int // that were answered before
		want                    string
	}{
		{"trailers", "application/grpc-web", message(0x80, "x: y\r\n"), 0, "trailers (flags 0x80)"},
		{"trailers after a message", "application/grpc-web", one + message(0x80, "x: y\r\n"), 1, "trailers (flags 0x80)"},
		{"unknown flags", "application/grpc-web", message(4, "x"), 0, "flags 0x04"},
		{"cut off in a prefix", "application/grpc-web", one + "\x00", 1, "after 1 of 5 bytes"},
		{"cut off in a message", "application/grpc-web", one[:7], 0, "1 bytes before"},
		{"no text", "application/grpc-web-text", "AAAA\x00\x01", 0, "which is not base64"},
		{"binary that says it is text", "application/grpc-web-text", one, 0, "byte 0x00 at character 1"},
		{"text cut off in a group", "application/grpc-web-text", text(one) + "AA", 1, "after 2 of them"},
		{"text that is padded wrongly", "application/grpc-web-text", text(one) + "A===", 1, "padding at character 14"},
		{"text with trailers", "application/grpc-web-text", text(one) + text(message(0x81, "x")), 1, "trailers (flags 0x81)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Read in small pieces, so that the messages before the fault are answered.
			h := echoHandler()
			a := call(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = io.NopCloser(&smallReads{r.Body})
				h.ServeHTTP(w, r)
			}), tc.contentType, tc.body)
			if a.status() != "3" || !strings.Contains(a.message(), tc.want) || !strings.HasPrefix(a.message(), "sluice: ") || a.http != 200 {
				t.Errorf("status %q, message %q", a.status(), a.message())
			}
			if len(a.messages) != tc.messages || (a.trailers != nil) != (tc.messages > 0) {
				t.Errorf("messages %q, trailers %q", a.messages, a.trailers)
			}
		})
	}
}

// A request that breaks off is none that is complete, whatever it is made of.
func TestHandlerTellsUpstreamThatARequestBrokeOff(t *testing.T) {
	for _, contentType := range []string{"application/grpc-web", "application/grpc-web-text"} {
		for _, sent := range []string{"", "AAAA", "AAAAAA"} {
			result := make(chan error, 1)
			conn := dial(t, NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				result <- err
			}), Options{}))
			fmt.Fprintf(conn, "POST /shop.v1.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: 8\r\n\r\n%s", contentType, sent)
			conn.(*net.TCPConn).CloseWrite()
			if err := <-result; err == nil {
				t.Errorf("%s, %q of 8 bytes: no error", contentType, sent)
			}
		}
	}
}

// The length of a small request is known before it is read, that of a text too.
func TestHandlerKnowsTheLengthOfASmallRequest(t *testing.T) {
	body := message(0, "one")
	for _, tc := range []struct {
		contentType, body string
		want              int64
	}{
		{"application/grpc-web", body, int64(len(body))},
		{"application/grpc-web-text", string(AppendText(nil, []byte(body))), int64(len(body))},
		{"application/grpc-web-text", "AAA", -1},
		{"application/grpc-web-text", string(AppendText(nil, []byte(message(0, strings.Repeat("x", maxRoom))))), -1},
	} {
		var length int64
		call(t, NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			length = r.ContentLength
			echo(w, r)
		}), Options{}), tc.contentType, tc.body)
		if length != tc.want {
			t.Errorf("%s, %d bytes: length %d, want %d", tc.contentType, len(tc.body), length, tc.want)
		}
	}
}

// smallReads gives a byte at a time.
type smallReads struct{ r io.Reader }

func (s *smallReads) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return s.r.Read(p[:1])
}

func TestHandlerReadsTextIntoAnyRoom(t *testing.T) {
	want := message(0, "one") + message(0, "twenty-two")
	for room := 1; room < 9; room++ {
		var got []byte
		var err error
		h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := make([]byte, room)
			for err == nil {
				var n int
				n, err = r.Body.Read(p)
				got = append(got, p[:n]...)
			}
			w.Header().Set("Grpc-Status", "0")
		}), Options{})
		call(t, h, "application/grpc-web-text", string(AppendText(nil, []byte(want))))
		if string(got) != want || !errors.Is(err, io.EOF) {
			t.Errorf("in pieces of %d: %q, %v", room, got, err)
		}
	}
}

func TestHandlerWantsPOST(t *testing.T) {
	r := httptest.NewRequest(http.MethodPut, "/shop.v1.Cart/Add", nil)
	r.Header.Set("Content-Type", "application/grpc-web-text")
	w := httptest.NewRecorder()
	echoHandler().ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Grpc-Status") != "13" || w.Body.Len() != 0 || w.Header().Get("Content-Type") != "application/grpc-web-text" {
		t.Errorf("status %d, header %q, body %q", w.Code, w.Header(), w.Body)
	}
}

func TestHandlerTellsPagesWhatTheyMaySee(t *testing.T) {
	policy := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	h := NewHandler(http.HandlerFunc(echo), Options{CORS: func(*http.Request) *CORS { return policy }})
	const exposed = "grpc-status, grpc-message, grpc-status-details-bin"
	for _, tc := range []struct{ name, body, origin, expose string }{
		{"with messages", message(0, "x"), "https://shop.example.com", exposed + ", x-served-by"},
		{"without, the trailers being in the header", "", "https://shop.example.com", exposed + ", x-end, x-served-by"},
		{"an error of the gateway's", message(2, "x"), "https://shop.example.com", exposed + ", x-served-by"},
		{"another origin", message(0, "x"), "https://evil.com", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := call(t, h, "application/grpc-web", tc.body, "Origin", tc.origin)
			if got := a.header.Get("Access-Control-Expose-Headers"); got != tc.expose {
				t.Errorf("exposed %q, want %q", got, tc.expose)
			}
			if a.header.Get("Vary") != "Origin" || (a.header.Get("Access-Control-Allow-Origin") == tc.origin) != (tc.expose != "") {
				t.Errorf("header %q", a.header)
			}
		})
	}
	if a := call(t, echoHandler(), "application/grpc-web", message(0, "x"), "Origin", "https://shop.example.com"); a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Access-Control-Expose-Headers") != "" || a.header.Get("Vary") != "" {
		t.Errorf("without a policy: %q", a.header)
	}
}

func TestFailEndsInTheCallersForm(t *testing.T) {
	policy := CompileCORS(CORSPolicy{AllowOrigins: []string{"*"}})
	r := httptest.NewRequest(http.MethodPost, "/shop.v1.Cart/Add", nil)
	r.Header.Set("Content-Type", "application/grpc-web-text+proto")
	r.Header.Set("Origin", "https://shop.example.com")
	w := httptest.NewRecorder()
	Fail(w, r, policy, &wire.Status{Code: wire.NotFound, Message: "sluice: no route\n", Details: []byte{0, 1, 2, 3}})
	want := http.Header{
		"Content-Type": {"application/grpc-web-text+proto"},
		"Grpc-Status":  {"5"}, "Grpc-Message": {"sluice: no route%0A"}, "Grpc-Status-Details-Bin": {"AAECAw"},
		"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {"grpc-status, grpc-message, grpc-status-details-bin"},
	}
	if w.Code != 200 || w.Body.Len() != 0 || fmt.Sprint(w.Header()) != fmt.Sprint(want) {
		t.Errorf("status %d, header %q, body %q", w.Code, w.Header(), w.Body)
	}
}

// dial opens an HTTP/1.1 connection to a server with the handler.
func dial(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

const chunkedPOST = "POST /shop.v1.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// Each message is answered before the next is sent: full duplex, and nothing waits
// for more.
func TestHandlerStreamsBothWaysOverHTTP1(t *testing.T) {
	conn := dial(t, echoHandler())
	io.WriteString(conn, chunkedPOST+chunk(message(0, "one")))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two", "three"} {
		if got, err := readMessage(resp.Body); err != nil || string(got) != message(0, text) {
			t.Fatalf("%q, %v; want %q", got, err, text)
		}
		if text == "two" {
			io.WriteString(conn, chunk(message(0, "three")[:4])+chunk(message(0, "three")[4:])+"0\r\n\r\n")
		} else if text == "one" {
			io.WriteString(conn, chunk(message(0, "two")))
		}
	}
	rest, err := io.ReadAll(resp.Body)
	if a := read(t, 200, resp.Header, string(rest)); err != nil || a.status() != "0" {
		t.Errorf("%q, %v", rest, err)
	}
}

// An RPC that ends before its request does is answered at once, and the connection
// is not held for the rest.
func TestHandlerWaitsForNoRequestThatIsOver(t *testing.T) {
	h := NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		readMessage(r.Body)
		w.Header().Set("Grpc-Status", "8")
	}), Options{})
	conn := dial(t, h)
	io.WriteString(conn, chunkedPOST+chunk(message(0, "one")))
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.Header.Get("Grpc-Status") != "8" {
		t.Fatalf("%v, %v", resp, err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v; want the connection closed", rest, err)
	}
}

// endEarly answers the first message with an error, while it reads what follows.
func endEarly(w http.ResponseWriter, r *http.Request) {
	readMessage(r.Body)
	w.WriteHeader(200)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, r.Body)
	}()
	r.Body.Close()
	<-done
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "8")
}

func TestHandlerEndsWhileItsRequestIsRead(t *testing.T) {
	conn := dial(t, NewHandler(http.HandlerFunc(endEarly), Options{}))
	io.WriteString(conn, chunkedPOST+chunk(message(0, "one")))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if a := read(t, 200, resp.Header, string(body)); err != nil || a.status() != "8" || !resp.Close {
		t.Errorf("%q, %v, closing %v", body, err, resp.Close)
	}
}

// A small response is one piece on the wire, and the connection serves the next.
func TestHandlerKeepsAConnection(t *testing.T) {
	server := httptest.NewServer(NewHandler(http.HandlerFunc(echoUnary), Options{}))
	defer server.Close()
	addresses := map[string]bool{}
	for range 3 {
		r, _ := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(message(0, "one")))
		r.Header.Set("Content-Type", "application/grpc-web+proto")
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		a := read(t, resp.StatusCode, resp.Header, string(body))
		if a.status() != "0" || !slices.Equal(a.messages, []string{"one"}) || resp.ContentLength < 0 {
			t.Errorf("status %q, messages %q, length %d", a.status(), a.messages, resp.ContentLength)
		}
		addresses[resp.Header.Get("X-Client")] = true
	}
	if len(addresses) != 1 {
		t.Errorf("%d connections", len(addresses))
	}
}

// echoUnary answers as the gateway does when the end is known with the message.
func echoUnary(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Content-Type"] = []string{"application/grpc+proto"}
	h["X-Client"] = []string{r.RemoteAddr}
	body, _ := io.ReadAll(r.Body)
	w.Write(body)
	h["Trailer:Grpc-Status"] = []string{"0"}
	h["Trailer:Grpc-Message"] = []string{""}
}
