package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const uploadsProto = `syntax = "proto3";
package grid;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
service Uploads {
  rpc Gather(stream Told) returns (Told) { option (google.api.http) = {post: "/v1/gather" body: "*"}; }
  rpc Talk(stream Told) returns (stream Told) { option (google.api.http) = {post: "/v1/talk" body: "*"}; }
  rpc Refuse(stream Told) returns (Told) { option (google.api.http) = {post: "/v1/refuse" body: "*"}; }
  rpc Scan(Told) returns (stream google.api.HttpBody) { option (google.api.http) = {get: "/v1/scan"}; }
  rpc List(Told) returns (stream Told) { option (google.api.http) = {get: "/v1/list"}; }
}
message Told { string name = 1; }
`

// uploadAnswers are of a backend that takes streams.
var uploadAnswers = map[string]answer{
	"Talk": echo,
	"Gather": func(_ *backend, st grpc.ServerStream) error {
		n := 0
		for {
			var m []byte
			if err := st.RecvMsg(&m); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
			n++
		}
		m := told(fmt.Sprint(n))
		return st.SendMsg(&m)
	},
	"Refuse": func(_ *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		return status.Error(codes.ResourceExhausted, "enough")
	},
	"Scan": func(_ *backend, st grpc.ServerStream) error {
		m := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "scan")
		if err := st.SendMsg(&m); err != nil {
			return err
		}
		return status.Error(codes.DataLoss, "paper jam")
	},
	"List": func(_ *backend, st grpc.ServerStream) error {
		m := told("a")
		if err := st.SendMsg(&m); err != nil {
			return err
		}
		return status.Error(codes.DataLoss, "paper jam")
	},
}

// uploader sends to a whole node by one version of HTTP.
type uploader struct {
	*http.Client
	url string
}

// overUploads runs a test by both versions.
func overUploads(t *testing.T, test func(t *testing.T, u uploader)) {
	t.Helper()
	b := startAnswering(t, uploadAnswers)
	g := startGateway(t, Config{}, schemaOf(t, uploadsProto), backendAt("a", b.addr), routeTo("r", "a"))
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(version == 1)
			protocols.SetUnencryptedHTTP2(version == 2)
			client := &http.Client{Transport: &http.Transport{Protocols: protocols, DisableCompression: true}}
			t.Cleanup(client.CloseIdleConnections)
			test(t, uploader{client, "http://" + g.address()})
		})
	}
}

func (u uploader) post(t *testing.T, path string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", u.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := u.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestUploadsTalkBothWays: each message is answered before the next one is sent.
func TestUploadsTalkBothWays(t *testing.T) {
	t.Parallel()
	overUploads(t, func(t *testing.T, u uploader) {
		out, in := io.Pipe()
		go io.WriteString(in, `{"name":"a"}`) // the answer's header may wait for it
		resp := u.post(t, "/v1/talk", out)
		lines := bufio.NewReader(resp.Body)
		for _, name := range []string{"a", "b", "c"} {
			if name != "a" {
				fmt.Fprintf(in, `{"name":%q}`+"\n", name)
			}
			if line, err := lines.ReadString('\n'); err != nil || line != `{"name":"`+name+`"}`+"\n" {
				t.Fatalf("%s is answered by %q, %v", name, line, err)
			}
		}
		in.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("in the end there is %q, %v", rest, err)
		}
	})
}

// TestUploadsAreAnsweredWhenTheBackendHasEnough: an answer does not wait for the rest of
// the request, a fault in it is told, and the client goes on to the next one.
func TestUploadsAreAnsweredWhenTheBackendHasEnough(t *testing.T) {
	t.Parallel()
	overUploads(t, func(t *testing.T, u uploader) {
		for range 3 {
			out, in := io.Pipe()
			go io.WriteString(in, `{"name":"a"}`)
			for _, step := range []struct {
				path string
				body io.Reader
				want string
			}{
				{"/v1/gather", strings.NewReader(strings.Repeat(`{"name":"a"}`+"\n", 5000)), `200 {"name":"5000"}`},
				{"/v1/refuse", out, `429 {"code":8,"message":"enough","details":[]}`},
				{"/v1/gather", strings.NewReader(`{"name":"a"} {"name":`), `400 {"code":3,"message":"sluice: message 2 of the request: `},
				{"/v1/talk", strings.NewReader(`}`), `400 {"code":3,"message":"sluice: message 1 of the request: `},
			} {
				resp := u.post(t, step.path, step.body)
				body, err := io.ReadAll(resp.Body)
				if got := fmt.Sprint(resp.StatusCode, " ", string(body)); err != nil || !strings.HasPrefix(got, step.want) {
					t.Errorf("%s: answer is %s, %v, want %s", step.path, got, err, step.want)
				}
			}
			in.Close()
		}
	})
}

// TestStreamsThatBreakOffDoNotLookComplete: an error has a line of its own, and where it
// cannot, the answer is cut.
func TestStreamsThatBreakOffDoNotLookComplete(t *testing.T) {
	t.Parallel()
	overUploads(t, func(t *testing.T, u uploader) {
		resp, err := u.Get(u.url + "/v1/list")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		const want = `{"name":"a"}` + "\n" + `{"error":{"code":15,"message":"paper jam","details":[]}}` + "\n"
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
			t.Errorf("lines are %q, %v, want %q", b, err, want)
		}
		resp, err = u.Get(u.url + "/v1/scan")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "scan" {
			t.Errorf("bytes are %q, %v, want an error behind them", b, err)
		}
	})
}
