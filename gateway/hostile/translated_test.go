package hostile

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/schema"
)

// notesProto describes the backends for those who translate. Of all the honest one
// gives back what it gets.
const notesProto = `syntax = "proto3";
package hostile;
import "google/api/annotations.proto";
import "google/protobuf/struct.proto";
service Honest {
  rpc Echo(Note) returns (Note) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      post: "/v1/echo" body: "*"
      additional_bindings { get: "/v1/notes/{pad}" }
      additional_bindings { get: "/v1/all/{pad=**}" }
    };
  }
  rpc Hold(Note) returns (Note) { option (google.api.http) = {post: "/v1/hold" body: "*"}; }
  rpc Blob(Note) returns (stream Note) { option (google.api.http) = {get: "/v1/blob"}; }
  rpc Chat(stream Note) returns (stream Note) { option (google.api.http) = {post: "/v1/chat" body: "*"}; }
}
message Note {
  string pad = 1;
  int32 n = 2;
  repeated int32 list = 3;
  Note inner = 4;
  google.protobuf.Value any = 5;
}
`

const chat = "/hostile.Honest/Chat" // as Echo, message by message

// notes is the Schema object of notesProto, for backends by name: those are not asked.
func notes(t testing.TB, backends ...string) string {
	t.Helper()
	set, err := schema.CompileSources(t.Context(), func(path string) (io.ReadCloser, error) {
		if path != "notes.proto" {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(notesProto)), nil
	}, []string{"."}, []string{"notes.proto"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return "---\napiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: notes}\nspec: {backendRefs: [{name: " + strings.Join(backends, "}, {name: ") + "}], descriptorSet: " + base64.StdEncoding.EncodeToString(raw) + "}\n"
}

// newTranslating is a rig whose gateway translates for the honest backend, and for the
// hostile ones. more are further resources.
func newTranslating(t testing.TB, cfg nodeConfig, more string, hostile ...*village) *rig {
	t.Helper()
	r := &rig{t: t, honest: startHonest(t, nil)}
	backends := map[string]string{good: r.honest.addr}
	names := []string{"honest"}
	for i, v := range hostile {
		v.authority = fmt.Sprintf("hostile-%d.test", i)
		backends[v.authority] = v.addr()
		names = append(names, fmt.Sprintf("hostile-%d", i))
	}
	if strings.Contains(more, "name: legacy") {
		names = append(names, "legacy")
	}
	cfg.Resources = resources(backends) + notes(t, names...) + more
	r.start(cfg, nil, startApart)
	r.probe = startProbe(t, r.addr)
	return r
}

// left is what the gateway counts as open, beside the bystander.
func (r *rig) left() (list []string) {
	for name, n := range r.counters(r.t) {
		family, _, _ := strings.Cut(name, "{")
		switch family {
		case "sluice_rpc_open", "sluice_endpoint_active", "sluice_tunnel_open":
		case "sluice_stream_open":
			if !strings.Contains(name, "upstream") {
				continue
			}
		default:
			continue
		}
		if n != 0 {
			list = append(list, fmt.Sprintf("%s %v", name, n))
		}
	}
	return list
}

// active is how many RPCs an endpoint is at work on.
func (r *rig) active(backend, addr string) float64 {
	return r.counters(r.t)[fmt.Sprintf("sluice_endpoint_active{backend=%q,endpoint=%q}", "default/"+backend, addr)]
}

// clean waits until nothing is open any more.
func (r *rig) clean() {
	r.t.Helper()
	var list []string
	if !eventually(patience, func() bool { list = r.left(); return len(list) == 0 }) {
		r.t.Errorf("still open: %v", list)
	}
}

// caller sends requests of one version of HTTP.
func caller(t testing.TB, version int) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	tr := &http.Transport{Protocols: protocols, DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * patience}
}

// ask is a request for one of the translated protocols.
type ask struct {
	verb, authority, path string // POST, of the honest backend
	header                []string
	body                  io.Reader
}

func (r *rig) request(t testing.TB, a ask) *http.Request {
	t.Helper()
	if a.verb == "" {
		a.verb = http.MethodPost
	}
	if a.authority == "" {
		a.authority = good
	}
	req, err := http.NewRequestWithContext(t.Context(), a.verb, "http://"+r.addr+a.path, a.body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = a.authority
	for i := 0; i < len(a.header); i += 2 {
		req.Header.Add(a.header[i], a.header[i+1])
	}
	return req
}

// told is how a request was answered, in whatever protocol.
type told struct {
	http int
	code int // of gRPC; -1 when the answer does not tell
	text string
}

func (a told) String() string { return fmt.Sprintf("HTTP %d, code %d, %.200q", a.http, a.code, a.text) }

// do sends a request and reads how it ended.
func do(c *http.Client, req *http.Request) (told, error) {
	resp, err := c.Do(req)
	if err != nil {
		return told{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return told{}, fmt.Errorf("HTTP %d: %w", resp.StatusCode, err)
	}
	return tell(resp, body), nil
}

var connectCodes = map[string]int{
	"canceled": 1, "unknown": 2, "invalid_argument": 3, "deadline_exceeded": 4, "not_found": 5, "permission_denied": 7,
	"resource_exhausted": 8, "failed_precondition": 9, "unimplemented": 12, "internal": 13, "unavailable": 14,
}

// tell reads the end of an RPC in the protocol of its answer.
func tell(resp *http.Response, body []byte) told {
	a := told{http: resp.StatusCode, code: -1, text: string(body)}
	contentType := resp.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(contentType, "application/grpc-web"):
		if strings.HasPrefix(contentType, "application/grpc-web-text") {
			body = decodeText(body)
		}
		a.code, a.text = webEnd(resp.Header, body)
	case strings.HasPrefix(contentType, "application/connect+"):
		a.code, a.text = envelopeEnd(body)
	case strings.HasPrefix(contentType, "application/json"), strings.HasPrefix(contentType, "application/x-ndjson"):
		a.code = jsonEnd(body)
		if a.code < 0 && resp.StatusCode == http.StatusOK {
			a.code = 0
		}
	case resp.StatusCode == http.StatusOK && contentType == "application/proto":
		a.code = 0
	}
	return a
}

// decodeText reads base64 that may be padded anywhere.
func decodeText(p []byte) (out []byte) {
	for ; len(p) >= 4; p = p[4:] {
		q, err := base64.StdEncoding.DecodeString(string(p[:4]))
		if err != nil {
			return nil
		}
		out = append(out, q...)
	}
	return out
}

func webEnd(h http.Header, body []byte) (code int, text string) {
	status, message := h.Get("Grpc-Status"), h.Get("Grpc-Message")
	for len(body) >= 5 {
		n := int(body[1])<<24 | int(body[2])<<16 | int(body[3])<<8 | int(body[4])
		if n > len(body)-5 {
			break
		}
		if body[0]&0x80 != 0 {
			end, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(string(body[5:5+n]) + "\r\n\r\n"))).ReadMIMEHeader()
			if end.Get("Grpc-Status") != "" {
				status, message = end.Get("Grpc-Status"), end.Get("Grpc-Message")
			}
		}
		body = body[5+n:]
	}
	code, err := strconv.Atoi(status)
	if err != nil {
		return -1, message
	}
	return code, message
}

func envelopeEnd(body []byte) (code int, text string) {
	for len(body) >= 5 {
		n := int(body[1])<<24 | int(body[2])<<16 | int(body[3])<<8 | int(body[4])
		if n > len(body)-5 {
			break
		}
		if body[0]&2 != 0 {
			var end struct{ Error json.RawMessage }
			if json.Unmarshal(body[5:5+n], &end) != nil {
				return -1, string(body)
			}
			if end.Error == nil {
				return 0, ""
			}
			return jsonEnd(end.Error), string(end.Error)
		}
		body = body[5+n:]
	}
	return -1, "no end of the stream"
}

// jsonEnd reads a google.rpc.Status, an error of Connect, or the last line of a stream.
func jsonEnd(body []byte) int {
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	var e struct {
		Code  json.RawMessage
		Error struct{ Code json.RawMessage }
	}
	last := lines[len(lines)-1]
	if json.Unmarshal(last, &e) != nil && json.Unmarshal(body, &e) != nil {
		return -1
	}
	if e.Code == nil {
		e.Code = e.Error.Code
	}
	if n, err := strconv.Atoi(string(e.Code)); err == nil {
		return n
	}
	if n, ok := connectCodes[strings.Trim(string(e.Code), `"`)]; ok {
		return n
	}
	return -1
}

// note is a Note on the wire.
func note(pad string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), pad)
}

// framed is a message behind its prefix.
func framed(flags byte, m []byte) []byte {
	f := message(len(m))
	f[0] = flags
	copy(f[5:], m)
	return f
}

// The content types by which protocols are told apart.
const (
	typeWeb     = "application/grpc-web+proto"
	typeText    = "application/grpc-web-text+proto"
	typeConnect = "application/proto"
	typeStream  = "application/connect+proto"
	typeJSON    = "application/json"
)

// raw connects and sends bytes as they are.
func (r *rig) raw(t testing.TB, s string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(6 * patience))
	if _, err := io.WriteString(nc, s); err != nil {
		t.Fatal(err)
	}
	return nc
}
