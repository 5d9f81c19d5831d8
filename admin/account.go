package admin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// account is a person who may sign in.
type account struct {
	Name     string       `json:"name"`
	Role     adminv1.Role `json:"role"`
	Password string       `json:"password"` // its hash
	Created  time.Time    `json:"created"`
	LastSeen time.Time    `json:"lastSeen,omitzero"`

	// FilePassword is the hash of what the password file said when it was last read:
	// the file's word counts again when it says something else.
	FilePassword string `json:"filePassword,omitempty"`
}

const accountPrefix = "account/"

func accountKey(name string) string { return accountPrefix + name }

// accountName is also that of tokens. It has no space, as in "token deploy" and
// "local root": no account can be taken for these.
var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]{0,63}$`)

func checkAccountName(what, name string) error {
	if !accountName.MatchString(name) {
		return fmt.Errorf("%s %s: want 1 to 64 of a-z, 0-9, '.', '_', '@' and '-', beginning with a letter or a digit", what, quoted(name))
	}
	return nil
}

// reservedNames are what the audit log and the history call the node itself, and the
// files that it reads: no person is to be taken for these.
var reservedNames = []string{"sluice", "files"}

func checkRole(role adminv1.Role) error {
	if role < adminv1.Role_ROLE_VIEWER || role > adminv1.Role_ROLE_ADMIN {
		return fmt.Errorf("role: want viewer, operator or admin")
	}
	return nil
}

// roleName is "viewer", "operator", "admin" or "registrar", or empty for nobody.
func roleName(role adminv1.Role) string {
	if role == adminv1.Role_ROLE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
}

// public is what others may know of an account.
func (a *account) public() *adminv1.Account {
	return &adminv1.Account{Name: a.Name, Role: a.Role, Created: stamp(a.Created), LastSeen: stamp(a.LastSeen)}
}

// accounts returns all of them, by name.
func accounts(tx RecordsTx) ([]*account, error) {
	return rows[account](tx, accountPrefix)
}

func getAccount(tx RecordsTx, name string) (*account, error) {
	return get[account](tx, accountKey(name))
}

// createAccount adds an account whose name must be free. A first administrator needs
// no set-up any more: a link that was printed for it is in logs, and ends.
func createAccount(tx RecordsTx, a *account) error {
	if slices.Contains(reservedNames, a.Name) {
		return invalid(fmt.Errorf("name %q stands for the node itself in the audit log and the history; take another", a.Name))
	}
	old, err := getAccount(tx, a.Name)
	if err != nil {
		return err
	}
	if old != nil {
		return connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("there is an account %q already", a.Name))
	}
	if a.Role == adminv1.Role_ROLE_ADMIN {
		if err := tx.Delete(setUpKey); err != nil {
			return err
		}
	}
	return put(tx, accountKey(a.Name), a)
}

// mustAccount returns an account that the caller named.
func mustAccount(tx RecordsTx, name string) (*account, error) {
	a, err := getAccount(tx, name)
	if err == nil && a == nil {
		err = connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no account %s", quoted(name)))
	}
	return a, err
}

// keepAnAdministrator refuses to let the account name go, or sink below
// administrator, when it is the last.
func keepAnAdministrator(tx RecordsTx, name string) error {
	all, err := accounts(tx)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Role == adminv1.Role_ROLE_ADMIN && a.Name != name {
			return nil
		}
	}
	return connect.NewError(connect.CodeFailedPrecondition,
		fmt.Errorf("account %q is the last administrator; make another first", name))
}

// hasAdministrator tells whether anybody can sign in as one.
func hasAdministrator(tx RecordsTx) (bool, error) {
	all, err := accounts(tx)
	for _, a := range all {
		if a.Role == adminv1.Role_ROLE_ADMIN {
			return true, err
		}
	}
	return false, err
}

// accountChange is one line of the audit log's before and after.
func accountChange(action string, before, after *account) *adminv1.Change {
	view := func(a *account) any {
		if a == nil {
			return nil
		}
		return map[string]string{"name": a.Name, "role": roleName(a.Role)}
	}
	name := ""
	if before != nil {
		name = before.Name
	} else if after != nil {
		name = after.Name
	}
	return recordChange(action, "Account", name, view(before), view(after))
}

// recordChange is a change of something that is no resource, in the form of one.
func recordChange(action, kind, name string, before, after any) *adminv1.Change {
	ref := &adminv1.Ref{Kind: kind, Name: name}
	object := func(v any) *adminv1.Object {
		if v == nil {
			return nil
		}
		manifest, _ := json.Marshal(v) // of strings, which cannot fail
		return &adminv1.Object{Ref: ref, Manifest: string(manifest)}
	}
	return &adminv1.Change{Action: action, Ref: ref, Before: object(before), After: object(after)}
}
