//! The playground for JavaScript: one class around [`rinha::sim::playground::Playground`]. Text goes in and JSON comes out, so
//! that this file stays as thin as it is.

use rinha::sim::playground::Playground;
use wasm_bindgen::prelude::wasm_bindgen;

/// A world that a page drives.
#[wasm_bindgen]
pub struct World(Playground);

#[wasm_bindgen]
impl World {
    /// A bank with these settings, as `seed=7 lanes=2`.
    ///
    /// # Errors
    /// What is wrong with them.
    #[wasm_bindgen(constructor)]
    pub fn new(settings: &str) -> Result<World, String> {
        Playground::new(settings).map(World)
    }

    /// The world of a seed, as `cargo stress sim --seed` runs it.
    pub fn of_seed(seed: u64) -> World {
        World(Playground::of_seed(seed))
    }

    /// Takes one step, and says what happened.
    pub fn step(&mut self) -> String {
        self.0.step()
    }

    /// Takes steps until this virtual time in microseconds, and at most so many.
    pub fn run_until(&mut self, until_us: f64, steps_max: u32) {
        // Microseconds of centuries are whole numbers in a float, and the cast saturates.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        self.0.run_until(until_us as u64, steps_max);
    }

    /// Does one thing to the world.
    ///
    /// # Errors
    /// What is wrong with the command; nothing was done.
    pub fn act(&mut self, command: &str) -> Result<(), String> {
        self.0.act(command)
    }

    /// Takes the steps and the commands of a script.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn replay(&mut self, script: &str) -> Result<(), String> {
        self.0.replay(script)
    }

    /// The commands so far, each with its step.
    pub fn script(&self) -> String {
        self.0.script()
    }

    /// How the world stands, as JSON.
    pub fn picture(&mut self) -> String {
        self.0.picture()
    }

    /// What went over the connection of a client, as JSON.
    pub fn client_wire(&self, client: usize) -> String {
        self.0.wire(0, None, client)
    }

    /// What went over the connection of a lane, as JSON.
    pub fn lane_wire(&self, instance: usize, lane: usize) -> String {
        self.0.wire(instance, Some(lane), 0)
    }
}
