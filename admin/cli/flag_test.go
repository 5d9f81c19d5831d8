package cli

import "testing"

func TestFlagSaysWhatItsValueMayBe(t *testing.T) {
	u := newUser(t)
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"history", "--limit", "-1"}, `sluice: --limit "-1": want a whole number from 0 to 4294967295; see sluice history --help`},
		{[]string{"history", "--limit=99999999999"}, `sluice: --limit "99999999999": want a whole number from 0 to 4294967295; see sluice history --help`},
		{[]string{"watch", "--after", "x"}, `sluice: --after "x": want a whole number from 0 to 18446744073709551615; see sluice watch --help`},
		{[]string{"status", "--wait", "10"}, `sluice: --wait "10": want a time such as 10s or 2m; see sluice status --help`},
		{[]string{"apply", "--dry-run=perhaps"}, `sluice: --dry-run "perhaps": want true or false; see sluice apply --help`},
		{[]string{"admin", "token", "create", "x", "--role", "king"}, `sluice: invalid argument "king" for "--role" flag: want viewer, operator, admin or registrar; see sluice admin token create --help`},
		{[]string{"history", "--limits", "1"}, `sluice: unknown flag: --limits; see sluice history --help`},
	}
	for _, test := range tests {
		if got := u.run(test.args...); got.code != 2 || got.stdout != "" || got.stderr != test.want+"\n" {
			t.Errorf("%v: got exit %d, %q, %q, want %q", test.args, got.code, got.stdout, got.stderr, test.want)
		}
	}
}
