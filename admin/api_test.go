package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// inJSON calls a procedure as curl does.
func (n *testNode) inJSON(t *testing.T, token, procedure, body string) (status int, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.addr+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := httpClient(t, 1, nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v in %q", procedure, err, text)
	}
	return resp.StatusCode, answer
}

// The same port takes gRPC, gRPC-Web and JSON at once, and all see the same.
func TestAPISpeaksEveryProtocolAtOnce(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	cc, signed := n.dialGRPC(t)
	token := n.token(t, adminv1.Role_ROLE_OPERATOR)
	url := "http://" + n.addr
	web := adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, connect.WithGRPCWeb(), withToken(token))
	proto := adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, withToken(token))
	get := &adminv1.GetRequest{Ref: ref("GRPCRoute", "cart")}
	calls := map[string]func() (string, error){
		"gRPC": func() (string, error) {
			resp := new(adminv1.GetResponse)
			err := cc.Invoke(signed, adminv1.ResourceServiceGetProcedure, get, resp)
			return resp.GetObject().GetRevision(), err
		},
		"gRPC-Web": func() (string, error) {
			resp, err := web.Get(t.Context(), connect.NewRequest(get))
			if err != nil {
				return "", err
			}
			return resp.Msg.GetObject().GetRevision(), nil
		},
		"Connect": func() (string, error) {
			resp, err := proto.Get(t.Context(), connect.NewRequest(get))
			if err != nil {
				return "", err
			}
			return resp.Msg.GetObject().GetRevision(), nil
		},
		"JSON": func() (string, error) {
			code, answer := n.inJSON(t, token, adminv1.ResourceServiceGetProcedure, `{"ref":{"kind":"GRPCRoute","name":"cart"}}`)
			if code != http.StatusOK {
				return "", fmt.Errorf("status %d: %v", code, answer)
			}
			return answer["object"].(map[string]any)["revision"].(string), nil
		},
	}
	route, _ := n.store.Snapshot().Get(store.ID{Kind: "GRPCRoute", Name: "cart"})
	var wg sync.WaitGroup
	for name, call := range calls {
		for range 8 {
			wg.Go(func() {
				if got, err := call(); err != nil || got != route.Revision.String() {
					t.Errorf("%s: revision %q, error %v, want %q", name, got, err, route.Revision)
				}
			})
		}
	}
	wg.Wait()
}

// An error is the same in every protocol: the code, and a detail with every fault.
func TestAPITellsFaultsInEveryProtocol(t *testing.T) {
	n := startNode(t)
	cc, signed := n.dialGRPC(t)
	token := n.token(t, adminv1.Role_ROLE_OPERATOR)
	url := "http://" + n.addr
	bad := &adminv1.ApplyRequest{File: "shop.yaml", Text: strings.Replace(cart, "cart-v2, weight: 10", "cart-v9, weight: ten", 1)}
	want := &adminv1.Fault{File: "shop.yaml", Line: 9, Column: 65, Field: "spec.rules[0].backendRefs[1].weight"}
	check := func(name string, got *adminv1.Faults) {
		t.Helper()
		if len(got.GetFaults()) != 1 {
			t.Errorf("%s: %v, want one fault", name, got)
			return
		}
		f := got.GetFaults()[0]
		if f.GetFile() != want.GetFile() || f.GetLine() != want.GetLine() || f.GetField() != want.GetField() || f.GetMessage() == "" {
			t.Errorf("%s: fault %v, want %v", name, f, want)
		}
	}

	err := cc.Invoke(signed, adminv1.ResourceServiceApplyProcedure, bad, new(adminv1.WriteResponse))
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("gRPC: %v", err)
	}
	faults, _ := status.Convert(err).Details()[0].(*adminv1.Faults)
	check("gRPC", faults)

	for name, client := range map[string]adminv1.ResourceServiceClient{
		"gRPC-Web": adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, connect.WithGRPCWeb(), withToken(token)),
		"Connect":  adminv1.NewResourceServiceClient(httpClient(t, 2, nil), url, connect.WithProtoJSON(), withToken(token)),
	} {
		_, err := client.Apply(t.Context(), connect.NewRequest(bad))
		wantCode(t, name, err, connect.CodeInvalidArgument, "shop.yaml:9:")
		check(name, detail[*adminv1.Faults](t, err))
	}
	body, _ := json.Marshal(map[string]string{"text": bad.GetText(), "file": bad.GetFile()})
	code, answer := n.inJSON(t, token, adminv1.ResourceServiceApplyProcedure, string(body))
	if code != http.StatusBadRequest || answer["code"] != "invalid_argument" || len(answer["details"].([]any)) != 1 {
		t.Errorf("JSON: %d %v", code, answer)
	}
	if n.store.Snapshot().Seq() != 0 {
		t.Error("a text with a fault has changed something")
	}
}

// What nobody foresaw is for the log.
func TestAPIKeepsTheCauseOfInternalErrors(t *testing.T) {
	log := new(journal)
	f := translator{newJournalLog(log)}
	secret := errors.New("open /secret: no such file")
	err := f.translate(context.Background(), connect.Spec{Procedure: "/x/Y"}, fmt.Errorf("do: %w", secret))
	wantCode(t, "unforeseen", err, connect.CodeInternal, "internal error")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the client was told %v", err)
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "open /secret") {
		t.Errorf("logged %q", log)
	}
}

func TestAPITranslatesErrors(t *testing.T) {
	id := store.ID{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}
	for _, tc := range []struct {
		name string
		err  error
		want connect.Code
	}{
		{"faults", store.Faults{{Message: "x"}}, connect.CodeInvalidArgument},
		{"conflict", &store.ConflictError{ID: id}, connect.CodeAborted},
		{"owned", &store.OwnedError{ID: id}, connect.CodeFailedPrecondition},
		{"not found", &store.NotFoundError{ID: id}, connect.CodeNotFound},
		{"compacted", store.ErrCompacted, connect.CodeOutOfRange},
		{"full", store.ErrFull, connect.CodeResourceExhausted},
		{"closed", store.ErrClosed, connect.CodeUnavailable},
		{"canceled", context.Canceled, connect.CodeCanceled},
		{"late", context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{"unforeseen", io.ErrUnexpectedEOF, connect.CodeInternal},
		{"one that has its code", refuse(connect.CodeNotFound, "gone"), connect.CodeNotFound},
	} {
		err := translator{newJournalLog(new(journal))}.translate(context.Background(), connect.Spec{}, fmt.Errorf("write: %w", tc.err))
		if got := connect.CodeOf(err); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// Of many faults the message has a few, the detail all.
func TestAPIMessageOfManyFaultsIsShort(t *testing.T) {
	var many store.Faults
	for i := range 60 {
		many = append(many, store.Fault{Field: fmt.Sprintf("f%d", i), Message: "is wrong"})
	}
	err := tell(many)
	if lines := strings.Split(err.Message(), "\n"); len(lines) != maxTold+1 || lines[maxTold] != "and 50 more" {
		t.Errorf("the message is %q", err.Message())
	}
	if got := len(detail[*adminv1.Faults](t, err).GetFaults()); got != 60 {
		t.Errorf("%d faults in the detail, want 60", got)
	}
}

// A body of 50 MB is refused in every protocol, and what is read of it is bounded.
func TestAPIRefusesLargeBodies(t *testing.T) {
	n := startNode(t)
	cc, signed := n.dialGRPC(t)
	token := n.token(t, adminv1.Role_ROLE_ADMIN)
	text := strings.Repeat("#", 50<<20)
	url := "http://" + n.addr
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	err := cc.Invoke(signed, adminv1.ResourceServiceApplyProcedure, &adminv1.ApplyRequest{Text: text}, new(adminv1.WriteResponse))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC: %v", err)
	}
	for name, client := range map[string]adminv1.ResourceServiceClient{
		"gRPC-Web": adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, connect.WithGRPCWeb(), withToken(token)),
		"Connect":  adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, withToken(token)),
		"JSON":     adminv1.NewResourceServiceClient(httpClient(t, 2, nil), url, connect.WithProtoJSON(), withToken(token)),
		"gzip":     adminv1.NewResourceServiceClient(httpClient(t, 1, nil), url, connect.WithSendGzip(), withToken(token)),
	} {
		_, err := client.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text}))
		wantCode(t, name, err, connect.CodeResourceExhausted, "")
	}

	// Without end, and without a length: it is read up to the limit.
	pr, pw := io.Pipe()
	go func() {
		for {
			if _, err := pw.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
				return
			}
		}
	}()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, url+adminv1.ResourceServiceApplyProcedure, pr)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if resp, err := httpClient(t, 1, nil).Do(req); err == nil { // it may be cut off before it has the answer
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("a body without end: %s", resp.Status)
		}
	}
	pr.Close()

	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 100<<20 {
		t.Errorf("%d MiB more are in use than before", grown>>20)
	}
	if n.store.Snapshot().Seq() != 0 {
		t.Error("something has changed")
	}
}

// A text longer than the store takes is refused with a fault like any other.
func TestAPIRefusesATextAboveTheLimit(t *testing.T) {
	n := startNode(t)
	_, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cart + strings.Repeat("# x\n", 4<<20)}))
	wantCode(t, "16 MiB and more", err, connect.CodeInvalidArgument, "limit 16777216")
	if got := detail[*adminv1.Faults](t, err); len(got.GetFaults()) != 1 {
		t.Errorf("faults %v", got)
	}
}

// Large bodies are read a few at a time; small ones go by.
func TestAPIReadsFewLargeBodiesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := bubbleAPI(t)
		// send sends a body of that size, of which the last two bytes are tail; without
		// it they never come.
		send := func(size int, tail string) (conn net.Conn, sent chan struct{}, answer chan string) {
			conn, sent, answer = l.dial(), make(chan struct{}), make(chan string, 1)
			go func() {
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
					adminv1.ResourceServiceDiffProcedure, size)
				conn.Write(bytes.Repeat([]byte(" "), size-2))
				io.WriteString(conn, tail)
				close(sent)
			}()
			go func() {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				answer <- line
			}()
			return conn, sent, answer
		}
		var conns []net.Conn
		for range maxLarge {
			conn, _, _ := send(smallBody*2, "")
			defer conn.Close()
			conns = append(conns, conn)
		}
		synctest.Wait()
		if len(a.large) != maxLarge {
			t.Fatalf("%d large bodies are being read, want %d", len(a.large), maxLarge)
		}
		small, _, answer := send(smallBody, "{}")
		defer small.Close()
		if line := <-answer; !strings.Contains(line, "400") {
			t.Errorf("a small body was answered with %q", line)
		}
		late, sent, answer := send(smallBody*3, "{}")
		defer late.Close()
		synctest.Wait()
		select {
		case <-sent:
			t.Error("a third large body is read at once")
		default:
		}
		conns[0].Close()
		if line := <-answer; !strings.Contains(line, "400") {
			t.Errorf("the third was answered with %q", line)
		}
	})
}

// Who has not signed in takes none of the places of large bodies, and who has takes
// none before the first byte has come.
func TestAPIKeepsThePlacesOfLargeBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := bubbleAPI(t)
		// send sends a header and the beginning of a long body.
		send := func(procedure, header string, size int) (conn net.Conn, answer chan string) {
			conn, answer = l.dial(), make(chan string, 1)
			go func() {
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n",
					procedure, header, smallBody*4)
				conn.Write(bytes.Repeat([]byte(" "), size))
			}()
			go func() {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				answer <- line
			}()
			return conn, answer
		}
		const stranger = "Authorization: Bearer sluice_nobody_s\r\n"
		for _, tc := range []struct {
			name, header string
			size         int
			want         string // empty: the rest is waited for
		}{
			{"nothing yet", stranger, 0, ""},
			{"a beginning", stranger, maxStrangerBody, ""},
			{"as much as is read at once", stranger, smallBody, ""},
			{"compressed", stranger + "Content-Encoding: gzip\r\n", 0, "501"},
			{"compressed in another way", stranger + "Content-Encoding: br\r\n", 10, "501"},
		} {
			conn, answer := send(adminv1.AccessServiceSignInProcedure, tc.header, tc.size)
			synctest.Wait()
			if len(a.large) != 0 {
				t.Errorf("%s: a stranger has a place", tc.name)
			}
			if tc.want != "" {
				begun := time.Now()
				if line := <-answer; !strings.Contains(line, tc.want) || time.Since(begun) >= bodyTime {
					t.Errorf("%s: answered with %q after %v, want %q at once", tc.name, line, time.Since(begun), tc.want)
				}
			}
			conn.Close()
			synctest.Wait()
		}
		for size, want := range map[int]int{0: 0, 10: 1} {
			conn, _ := send(adminv1.ResourceServiceDiffProcedure, "Content-Encoding: gzip\r\n", size)
			synctest.Wait()
			if len(a.large) != want {
				t.Errorf("after %d bytes of a compressed body %d places are taken, want %d", size, len(a.large), want)
			}
			conn.Close()
			synctest.Wait()
		}
	})
}

// Large texts are parsed one after the other; small ones go by.
func TestAPIParsesOneLargeTextAtOnce(t *testing.T) {
	n := startNode(t)
	n.admin.api.parsing <- struct{}{} // somebody else's
	n.apply(t, cart)
	large := &adminv1.ApplyRequest{Text: cart + strings.Repeat("# x\n", smallBody)}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.resources.Apply(ctx, connect.NewRequest(large))
	wantCode(t, "while another is parsed", err, connect.CodeDeadlineExceeded, "")
	<-n.admin.api.parsing
	if _, err := n.resources.Apply(t.Context(), connect.NewRequest(large)); err != nil {
		t.Errorf("after that: %v", err)
	}
}
