package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	echov1 "sluice/bench/echo/v1"
)

// answer is a whole reply, whatever the protocol.
type answer struct {
	status          int
	header, trailer http.Header
	body            []byte
}

// asker makes the RPCs of a probe over one connection.
type asker struct {
	client    *http.Client
	transport *http.Transport
	url       string
	speech    *speech
}

func newAsker(addr string, s *speech) *asker {
	t := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1, DisableCompression: true}
	t.Protocols.SetHTTP1(s.http1)
	t.Protocols.SetUnencryptedHTTP2(!s.http1)
	return &asker{
		client:    &http.Client{Transport: t, Timeout: clientTimeout},
		transport: t, url: "http://" + addr + s.path, speech: s,
	}
}

// ask makes one RPC, with changed fields when there are any.
func (a *asker) ask(changed ...[2]string) (answer, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if a.speech.data != nil {
		method, body = http.MethodPost, bytes.NewReader(a.speech.data)
	}
	req, err := http.NewRequest(method, a.url, body)
	if err != nil {
		return answer{}, err
	}
	for _, f := range append(a.speech.fields[:len(a.speech.fields):len(a.speech.fields)], changed...) {
		req.Header.Set(f[0], f[1])
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	const most = 64 << 10 // of a reply of a few hundred bytes, or of a page about an error
	got, err := io.ReadAll(io.LimitReader(resp.Body, most))
	return answer{resp.StatusCode, resp.Header, resp.Trailer, got}, err
}

// verify checks the whole of a good reply and says which backend made it.
func (a answer) verify(s *speech) (backend int, err error) {
	if a.status != http.StatusOK {
		return 0, fmt.Errorf("HTTP status %d with %.200q, want 200", a.status, a.body)
	}
	note, err := s.read(a)
	if err != nil {
		return 0, err
	}
	for i, fill := range backendFill {
		if proto.Equal(note, newNote(noteRequest, fill)) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("note %v, want that of a backend", note)
}

func (a answer) wantType(prefix string) error {
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, prefix) {
		return fmt.Errorf("content-type %q, want %s", got, prefix)
	}
	return nil
}

func readNative(a answer) (*echov1.Note, error) {
	if err := a.wantType("application/grpc"); err != nil {
		return nil, err
	}
	if got := a.trailer.Get("Grpc-Status"); got != "0" {
		return nil, fmt.Errorf("trailer %v, want grpc-status 0", a.trailer)
	}
	note, rest, err := cutNote(a.body)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the message", len(rest))
	}
	return note, err
}

// readWeb reads one message and the trailer, which gRPC-Web sends as a frame of its
// own with the flag 0x80.
func readWeb(a answer) (*echov1.Note, error) {
	if err := a.wantType("application/grpc-web"); err != nil {
		return nil, err
	}
	note, rest, err := cutNote(a.body)
	if err != nil {
		return nil, err
	}
	trailer, rest, err := cutFrame(rest, 0x80)
	if err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the trailer", len(rest))
	}
	return note, checkTrailer(string(trailer))
}

func checkTrailer(block string) error {
	for line := range strings.SplitSeq(block, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "grpc-status") && strings.TrimSpace(value) == "0" {
			return nil
		}
	}
	return fmt.Errorf("trailer %q, want grpc-status 0", block)
}

func cutNote(body []byte) (note *echov1.Note, rest []byte, err error) {
	raw, rest, err := cutFrame(body, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("message: %w", err)
	}
	note = new(echov1.Note)
	return note, rest, proto.Unmarshal(raw, note)
}

// cutFrame takes the first frame off, which has to have these flags.
func cutFrame(body []byte, flags byte) (payload, rest []byte, err error) {
	const prefix = 5
	if len(body) < prefix {
		return nil, nil, fmt.Errorf("%d bytes, want a prefix of %d", len(body), prefix)
	}
	if body[0] != flags {
		return nil, nil, fmt.Errorf("flags %#x, want %#x", body[0], flags)
	}
	size := binary.BigEndian.Uint32(body[1:])
	if body = body[prefix:]; uint32(len(body)) < size {
		return nil, nil, fmt.Errorf("%d bytes, want the %d of the prefix", len(body), size)
	}
	return body[:size], body[size:], nil
}

func readJSON(a answer) (*echov1.Note, error) {
	if err := a.wantType("application/json"); err != nil {
		return nil, err
	}
	note := new(echov1.Note)
	if err := protojson.Unmarshal(a.body, note); err != nil {
		return nil, fmt.Errorf("body %.200q: %w", a.body, err)
	}
	return note, nil
}

// probeSpeech makes RPCs whose replies are checked to the last byte, and says how
// long each body was: programs that write JSON each have a way of their own, but
// have to keep to it.
func probeSpeech(addr string, s *speech) (spread balance, body int, err error) {
	a := newAsker(addr, s)
	defer a.transport.CloseIdleConnections()
	for n := range probes {
		got, err := a.ask()
		if err != nil {
			return spread, 0, err
		}
		backend, err := got.verify(s)
		if err != nil {
			return spread, 0, err
		}
		spread.SameConn[backend]++
		if n > 0 && len(got.body) != body {
			return spread, 0, fmt.Errorf("bodies of %d and of %d bytes for the same note", body, len(got.body))
		}
		body = len(got.body)
	}
	return spread, body, nil
}

// probeLate checks that a proxy enforces the caller's deadline in this protocol.
func probeLate(addr string, s *speech) error {
	a := newAsker(addr, s)
	defer a.transport.CloseIdleConnections()
	got, err := a.ask(s.late)
	if err != nil {
		return fmt.Errorf("RPC with no time: %w", err)
	}
	var all bytes.Buffer
	err = errors.Join(got.header.Write(&all), got.trailer.Write(&all))
	all.Write(got.body)
	if err == nil && !strings.Contains(strings.ToLower(all.String()), s.tardy) {
		err = fmt.Errorf("RPC with no time got %d with %.300q, want %q in it", got.status, all.String(), s.tardy)
	}
	return err
}
