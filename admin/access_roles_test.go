package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// procedures are all that the generated services have.
func procedures() []string {
	var found []string
	services := adminv1.File_v1_admin_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			found = append(found, fmt.Sprintf("/%s/%s", services.Get(i).FullName(), services.Get(i).Methods().Get(j).Name()))
		}
	}
	return found
}

func TestPermissionsNameEveryProcedure(t *testing.T) {
	all := procedures()
	if len(all) < 48 {
		t.Fatalf("the services have %d procedures: these are not all", len(all))
	}
	for _, p := range all {
		if _, ok := permissions[p]; !ok {
			t.Errorf("%s has no permission: nobody can call it", p)
		}
	}
	if len(permissions) != len(all) {
		t.Errorf("%d permissions for %d procedures: some are of none", len(permissions), len(all))
	}
	for p, needs := range permissions {
		if needs.open == (needs.role != adminv1.Role_ROLE_UNSPECIFIED) {
			t.Errorf("%s is for everybody or for a role, not both or neither", p)
		}
	}
}

// wantRoles is the table of permissions once more, as a reader of the documentation
// knows it.
var wantRoles = map[string]string{
	"Get": "viewer", "List": "viewer", "Diff": "viewer", "Watch": "viewer", "History": "viewer", "Explain": "viewer", "Status": "viewer",
	"ListSchemas": "viewer", "ListMethods": "viewer", "GetOpenAPI": "viewer",
	"Apply": "operator", "Delete": "operator", "Rollback": "operator", "Split": "operator", "Drain": "operator", "Disable": "operator", "Adopt": "operator",
	"Backup": "admin", "Restore": "admin",
	"ListEndpoints": "viewer", "Register": "operator", "Renew": "operator", "Deregister": "operator", "Keep": "operator", "Rebalance": "operator",
	"ListMembers": "viewer", "ListConflicts": "viewer", "SettleConflict": "operator",
	"Join": "admin", "Leave": "admin", "DrainNode": "admin", "ListKeys": "admin", "AddKey": "admin", "UseKey": "admin", "RemoveKey": "admin",
	"SignIn": "nobody", "SignOut": "nobody", "WhoAmI": "nobody", "SetUp": "nobody",
	"CreateSetUpLink": "local",
	"CreateAccount":   "admin", "ListAccounts": "admin", "UpdateAccount": "admin", "DeleteAccount": "admin",
	"CreateToken": "admin", "ListTokens": "admin", "RevokeToken": "admin", "Audit": "admin",
}

// registrarMay are the procedures that a registrar calls beside those that nobody need
// be somebody for.
var registrarMay = map[string]bool{"Register": true, "Renew": true, "Deregister": true, "Keep": true}

// Every procedure, called by everybody: at the door, and once more by what stands
// right before the service, should the door ever be left out.
func TestRolesAreExact(t *testing.T) {
	s := newSite(t)
	rank := []string{"nobody", "viewer", "operator", "admin", "local"}
	callers := map[string]*client{
		"nobody":   s.program(""),
		"viewer":   s.program(s.addToken(t, adminv1.Role_ROLE_VIEWER)),
		"operator": s.program(s.addToken(t, adminv1.Role_ROLE_OPERATOR)),
		"admin":    s.program(s.addToken(t, adminv1.Role_ROLE_ADMIN)),
		"local":    s.local(),
	}
	beside := s.program(s.addToken(t, adminv1.Role_ROLE_REGISTRAR))
	reached := false
	s.handler = s.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached = authorise(callerFrom(r.Context()), r.URL.Path) == nil
	}))
	tried := 0
	for _, p := range procedures() {
		allowed := false
		for _, who := range rank {
			name := p[strings.LastIndex(p, "/")+1:]
			allowed = allowed || wantRoles[name] == who
			reached = false
			resp, text := callers[who].post(t, p, "application/json", "{}")
			if reached != allowed {
				t.Errorf("%s by %s: let in %v, want %v (%s)", name, who, reached, allowed, text)
			}
			want := http.StatusOK
			if !allowed {
				want = http.StatusForbidden
				if who == "nobody" {
					want = http.StatusUnauthorized
				}
			}
			if resp.StatusCode != want {
				t.Errorf("%s by %s: status %d, want %d", name, who, resp.StatusCode, want)
			}
			tried++
		}
		name := p[strings.LastIndex(p, "/")+1:]
		reached = false
		_, text := beside.post(t, p, "application/json", "{}")
		if want := registrarMay[name] || wantRoles[name] == "nobody"; reached != want {
			t.Errorf("%s by registrar: let in %v, want %v (%s)", name, reached, want, text)
		}
		tried++
		if err := authorise(nil, p); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s without the door: %v, want a refusal", p, err)
		}
	}
	t.Logf("%d combinations of procedure and caller", tried)
}

// What looks like a procedure is none: it meets no service.
func TestGuardKnowsProceduresByTheirWholePath(t *testing.T) {
	s := newSite(t)
	const apply = adminv1.ResourceServiceApplyProcedure
	for _, path := range []string{
		"/" + apply, apply + "/", strings.ToUpper(apply), strings.Replace(apply, "/Apply", "//Apply", 1),
		strings.Replace(apply, "/Apply", "/./Apply", 1), strings.Replace(apply, "/Apply", "/x/../Apply", 1),
		strings.Replace(apply, "/Apply", "%2FApply", 1), strings.Replace(apply, "Apply", "%41pply", 1),
		strings.Replace(apply, "sluice", "x.sluice", 1), apply + ";x", apply + "%00", apply + "%20", "/sluice.admin.v1.ResourceService/apply",
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		resp, _ := s.program("").send(t, r)
		if resp.StatusCode/100 == 2 || s.routes.count() != 0 {
			t.Errorf("%s: status %d, reached %d times", path, resp.StatusCode, s.routes.count())
		}
	}
}

// A service that is mounted without the guard lets nobody in.
func TestInterceptorRefusesWithoutGuard(t *testing.T) {
	s := newSite(t)
	mux := http.NewServeMux()
	mux.Handle(adminv1.NewResourceServiceHandler(s.routes, s.HandlerOptions()...))
	s.handler = mux
	c := s.program(s.addTokenDirectly(t))
	if err := c.get(t.Context()); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("unary: %v, want a refusal", err)
	}
	watch, err := c.resources().Watch(t.Context(), connect.NewRequest(&adminv1.WatchRequest{}))
	if err == nil && watch.Receive() || connect.CodeOf(firstError(err, watch)) != connect.CodePermissionDenied {
		t.Errorf("stream: %v, want a refusal", firstError(err, watch))
	}
	if s.routes.count() != 0 {
		t.Error("the service was reached")
	}
}

func firstError[T any](err error, stream *connect.ServerStreamForClient[T]) error {
	if err != nil {
		return err
	}
	return stream.Err()
}

// addTokenDirectly makes a token past the door.
func (s *site) addTokenDirectly(t *testing.T) string {
	t.Helper()
	ctx := withCaller(context.Background(), &caller{Identity: Identity{Actor: "local root", Role: adminv1.Role_ROLE_ADMIN}})
	answer, err := (&accessServer{s.Access}).CreateToken(ctx, connect.NewRequest(&adminv1.CreateTokenRequest{
		Name: "x", Role: adminv1.Role_ROLE_ADMIN,
	}))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Msg.Secret
}
