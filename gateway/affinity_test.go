package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// TestAffinityBringsCallersBack: who sends back what he was given is at the same endpoint,
// as long as that takes RPCs, in whichever protocol he asks.
func TestAffinityBringsCallersBack(t *testing.T) {
	t.Parallel()
	var addrs []string
	for i := range 4 {
		addrs = append(addrs, startGrid(t, fmt.Sprint("b", i)).addr)
	}
	for _, by := range []string{"header: x-stick", "cookie: stick, ttl: 90s"} {
		g := startGateway(t, Config{}, gridSchema(t), backendWith("a", "loadBalancing: {sessionAffinity: {"+by+"}}", addrs...), routeTo("r", "a"))
		cc := dial(t, g.address(), grpc.WithAuthority("shop.example.com"))
		// ask returns who has answered, and what he gave to come back by.
		ask := func(token string) (name, given string) {
			t.Helper()
			pair := []string{"x-stick", token}
			if strings.HasPrefix(by, "cookie") {
				pair = []string{"cookie", "a=b; stick=" + token + "; c=d"}
			}
			ctx := shortly(t)
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, pair...)
			}
			var head metadata.MD
			reply, err := invoke(ctx, cc, "/grid.Grid/Name", nil, grpc.Header(&head))
			if err != nil {
				t.Fatal(err)
			}
			return nameIn(reply), givenToken(t, by, http.Header{"X-Stick": head["x-stick"], "Set-Cookie": head["set-cookie"]})
		}
		first, token := ask("")
		if token == "" || strings.Contains(token, "127.0.0.1") {
			t.Fatalf("%s: the caller got the token %q", by, token)
		}
		for range 20 {
			if name, again := ask(token); name != first || again != "" {
				t.Fatalf("%s: the second time %s has answered, and %s before; given again %q", by, name, first, again)
			}
		}
		if _, given := ask("of nobody"); given == "" {
			t.Errorf("%s: a token of nobody is not replaced", by)
		}
		for _, c := range []struct{ name, method, path, contentType, body string }{
			{"REST", "GET", "/v1/name", "", ""},
			{"Connect", "POST", "/grid.Grid/Name", "application/json", "{}"},
			{"gRPC-Web", "POST", "/grid.Grid/Name", "application/grpc-web+proto", string(message(nil))},
		} {
			get := func(token string) (*http.Response, string) {
				req, _ := http.NewRequestWithContext(shortly(t), c.method, "http://"+g.address()+c.path, strings.NewReader(c.body))
				req.Header.Set("Content-Type", c.contentType)
				if strings.HasPrefix(by, "cookie") && token != "" {
					req.AddCookie(&http.Cookie{Name: "stick", Value: token})
				} else if token != "" {
					req.Header.Set("X-Stick", token)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return resp, givenToken(t, by, resp.Header)
			}
			resp, token := get("")
			if token == "" {
				t.Errorf("%s by %s: no token in %v", by, c.name, resp.Header)
				continue
			}
			if resp, again := get(token); again != "" {
				t.Errorf("%s by %s: another token in %v", by, c.name, resp.Header)
			}
		}
		// The endpoint goes: the caller is led to another, and told so.
		left := slices.DeleteFunc(slices.Clone(addrs), func(a string) bool { return a == addrs[first[1]-'0'] })
		g.apply(t, gridSchema(t), backendWith("a", "loadBalancing: {sessionAffinity: {"+by+"}}", left...), routeTo("r", "a"))
		next, token := ask(token)
		if next == first || token == "" {
			t.Errorf("%s: %s has answered after it has gone, token %q", by, next, token)
		}
	}
}

// givenToken is what a response binds its caller by, empty when it does not.
func givenToken(t *testing.T, by string, h http.Header) string {
	t.Helper()
	if strings.HasPrefix(by, "header") {
		return h.Get("X-Stick")
	}
	for _, line := range h["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			t.Errorf("set-cookie %q: %v", line, err)
		} else if c.Name == "stick" {
			if c.MaxAge != 90 || !c.HttpOnly || c.Path != "/" || c.Secure {
				t.Errorf("the cookie is %v", line)
			}
			return c.Value
		}
	}
	return ""
}

// TestAffinityOutlivesARetry: the answer of another endpoint brings its token.
func TestAffinityOutlivesARetry(t *testing.T) {
	t.Parallel()
	first, second := startScript(t, manners{}), startScript(t, manners{})
	var tries atomic.Int32
	for _, s := range []*scripted{first, second} {
		s.play(t, func(q played) {
			if tries.Add(1) == 1 {
				q.says("14", "")
				return
			}
			q.p.reply(q.id, nil)
		})
	}
	g := startTreated(t, Config{}, onceMore, backendWith("a", "loadBalancing: {sessionAffinity: {header: x-stick}}", first.addr, second.addr), routeTo("r", "a"))
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.data(1, message(nil), true)
	token := client.awaitHeaders(1).get("x-stick")
	client.request(3, "/shop.Cart/Get", "x-stick", token)
	client.data(3, message(nil), true)
	if e := client.awaitHeaders(3); token == "" || e.get("x-stick") != "" {
		t.Errorf("token %q, and then %v", token, e)
	}
}

// TestHashingKeepsAKeyTogether: RPCs of one key are at one endpoint, keys are spread.
func TestHashingKeepsAKeyTogether(t *testing.T) {
	t.Parallel()
	var addrs []string
	for i := range 4 {
		addrs = append(addrs, startGrid(t, fmt.Sprint("b", i)).addr)
	}
	for _, policy := range []string{"RingHash", "Maglev"} {
		g := startGateway(t, Config{}, gridSchema(t), backendWith("a", "loadBalancing: {policy: "+policy+", hashOn: {header: x-user}}", addrs...), routeTo("r", "a"))
		at := make(map[string]string)
		byName := make(map[string]bool)
		onGrid(t, g, func(t *testing.T, c gridCaller) {
			for i := range 20 {
				user := fmt.Sprint("user", i)
				end := c.must(t, gridAsk{method: "Name", header: map[string]string{"x-user": user}})
				if was := at[user]; was != "" && was != end.name {
					t.Errorf("%s: %s was at %s and is at %s", policy, user, was, end.name)
				}
				at[user], byName[end.name] = end.name, true
			}
		})
		if len(byName) < 3 {
			t.Errorf("%s: 20 keys are at %v", policy, byName)
		}
	}
}

// TestHashingLooksAtPathOrClient: RPCs of one path, or of one caller, are together.
func TestHashingLooksAtPathOrClient(t *testing.T) {
	t.Parallel()
	var addrs []string
	for i := range 4 {
		addrs = append(addrs, startBackend(t, fmt.Sprint("b", i)).addr)
	}
	for _, on := range []string{"path: true", "clientAddress: true"} {
		g := startGateway(t, Config{}, backendWith("a", "loadBalancing: {policy: RingHash, hashOn: {"+on+"}}", addrs...), routeTo("r", "a"))
		names := make(map[string]bool)
		for i := range 20 {
			cc := dial(t, g.address())
			for range 3 {
				name, err := invoke(context.Background(), cc, fmt.Sprintf("/shop.Cart%d/Who", i), nil)
				if err != nil {
					t.Fatal(err)
				}
				names[string(name)] = true
			}
			cc.Close()
		}
		if want := on == "clientAddress: true"; (len(names) == 1) != want {
			t.Errorf("%s: RPCs were at %v", on, names)
		}
	}
}

// TestAffinityOfRequests: what an HTTPRoute passes on finds back as RPCs do.
func TestAffinityOfRequests(t *testing.T) {
	t.Parallel()
	var addrs []string
	for i := range 4 {
		addrs = append(addrs, httpBackend(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) }))
	}
	for _, test := range []struct{ name, balancing string }{
		{"cookie", "sessionAffinity: {cookie: stick, ttl: 90s}"},
		{"hash", "policy: Maglev, hashOn: {header: x-user}"},
	} {
		g := startGateway(t, Config{}, backendWith("a", "protocol: http1\nloadBalancing: {"+test.balancing+"}", addrs...), everything("a"))
		var cookies []*http.Cookie
		ask := func() string {
			req, _ := http.NewRequestWithContext(shortly(t), "GET", "http://"+g.address()+"/page", nil)
			req.Header.Set("X-User", "one")
			for _, c := range cookies {
				req.AddCookie(c)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if given := resp.Cookies(); len(given) > 0 && cookies != nil {
				t.Errorf("%s: given again %v", test.name, given)
			} else if len(given) > 0 {
				cookies = given
			}
			body, _ := io.ReadAll(resp.Body)
			return string(body)
		}
		first := ask()
		for range 20 {
			if got := ask(); got != first {
				t.Fatalf("%s: %s has answered, and %s before", test.name, got, first)
			}
		}
		if test.name == "cookie" && cookies == nil {
			t.Error("no cookie was given")
		}
	}
}
