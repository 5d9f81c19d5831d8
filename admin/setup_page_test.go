package admin

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestSetUpPageRunsItsOwnScriptAlone(t *testing.T) {
	rt := newRouter(Config{}, Parts{}, new(api), nil)
	rec := httptest.NewRecorder()
	rt.ServeHTTP(rec, httptest.NewRequest("GET", setUpPath, nil))
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "text/html; charset=utf-8" || rec.Body.String() != setUpText {
		t.Fatalf("answered %d %s", rec.Code, rec.Header())
	}
	policy := rec.Header().Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
		// by: openssl dgst -sha256 -binary | base64, of what stands between the tags
		"script-src '" + hashOf(setUpText, "script") + "'", "style-src '" + hashOf(setUpText, "style") + "'",
	} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %s", policy, want)
		}
	}
	if got := hashOf("<script>alert(1)</script>", "script"); got != "sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=" {
		t.Errorf("hash %s", got)
	}
	// What the policy would keep from running has no place in the page.
	for _, never := range []string{`(?i)\son\w+=`, `(?i)\sstyle=`, `(?i)javascript:`, `(?i)\ssrc=`, `innerHTML`, `https?://`} {
		if found := regexp.MustCompile(never).FindString(setUpText); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	if strings.Count(setUpText, "<script>") != 1 || strings.Count(setUpText, "<style>") != 1 {
		t.Error("want one script and one style")
	}
}
