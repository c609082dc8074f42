//! What a lane's session is set to, seen from within.

use std::collections::BTreeMap;

use rinha::config::Config;

use crate::support::Bank;

/// A transaction of this bank runs with every setting that the server pins.
pub(crate) fn assert_settings(bank: &Bank) {
    bank.database.execute(
        "CREATE TABLE seen (name text, setting text);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO seen SELECT name, setting FROM pg_settings;
             INSERT INTO seen SELECT 'isolation of this one', current_setting('transaction_isolation');
             RETURN NEW;
         END $$;
         CREATE TRIGGER look BEFORE INSERT ON transacoes FOR EACH ROW EXECUTE FUNCTION look();",
    );
    assert_eq!(bank.transact(1, 1, "c", "look").status, 200);
    let rows = bank.database.connect().query("SELECT name, setting FROM seen", &[]).expect("look");
    let seen: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(seen["isolation of this one"], "read committed");
    let config = Config::from_environment(|name| match name {
        "DATABASE_URL" => Some("postgresql://rinha@localhost/rinha".to_owned()),
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        _ => None,
    });
    for (name, value) in config.expect("the settings are valid").session_settings {
        match seen.get(name) {
            // On a Unix socket they have no value.
            Some(_) if name.starts_with("tcp_") => {}
            Some(seen) => assert_eq!(*seen, value, "{name}"),
            None => assert_eq!(name, "transaction_timeout", "PostgreSQL before 17 has all others"),
        }
    }
}
